"""mmliir: learn pixel correspondence from raw video, and use it."""

from mmliir.utils.compat import require_engine
from mmliir.version import __version__

require_engine()

__all__ = ['__version__']
