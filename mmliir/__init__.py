"""mmliir: learn pixel correspondence from raw video, and use it."""

from mmliir.utils.compat import check_engine
from mmliir.version import __version__

check_engine()

__all__ = ['__version__']
