"""Position maps added after the backbone's stem, and their modulation for bank frames."""

from mmliir.models.position_encoders.learned import LearnedPositionEncoder1d
from mmliir.models.position_encoders.modulation import PositionShift, roll_position_map

__all__ = ['LearnedPositionEncoder1d', 'PositionShift', 'roll_position_map']
