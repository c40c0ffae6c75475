"""Position maps added after the backbone's stem, and their modulation for bank frames."""

from mmliir.models.position_encoders.learned import LearnedPositionEncoder1d, LearnedPositionEncoder2d
from mmliir.models.position_encoders.modulation import (
    PositionShift,
    PositionShuffle,
    permute_position_map,
    roll_position_map,
)
from mmliir.models.position_encoders.sine import SinePositionEncoder2d

__all__ = [
    'LearnedPositionEncoder1d',
    'LearnedPositionEncoder2d',
    'PositionShift',
    'PositionShuffle',
    'SinePositionEncoder2d',
    'permute_position_map',
    'roll_position_map',
]
