"""The learnt position maps of LIIR: 1-D absolute ("1DAPE", the default) and 2-D absolute ("2DAPE")."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmliir.models.position_encoders.grid import check_resize_mode, join_axes, resize_position_map
from mmliir.registry import MODELS


@MODELS.register_module()
class LearnedPositionEncoder1d(BaseModule):
    """A free vector for every position of the stem's grid (LIIR section 3.2, liir.md section 3).

    Args:
        channels: Channels of the stem's output.
        size: (h, w) of the learnt map: half the training size, (128, 128) for 256x256 images.
        resize_mode: How the map is brought to another grid: 'bicubic' or 'bilinear'.
    """

    def __init__(self, channels: int, size: tuple[int, int] = (128, 128), resize_mode: str = 'bicubic'):
        super().__init__()
        self.resize_mode = check_resize_mode(resize_mode)
        self.position_map = nn.Parameter(torch.zeros(1, channels, *size))

    def forward(self, size: tuple[int, int]) -> Tensor:
        """The map on a grid of `size` = (h, w): (1, channels, h, w)."""
        return resize_position_map(self.position_map, size, self.resize_mode)


@MODELS.register_module()
class LearnedPositionEncoder2d(BaseModule):
    """A free vector for every column and one for every row, concatenated (LIIR section 3.2, "2DAPE", as in ViT).

    P(y, x) = concat(P_x[x], P_y[y]): the first half of the channels tells the column, the second the row (liir.md
    section 3). On another grid the two tables are interpolated, which equals interpolating the map.

    Args:
        channels: Channels of the stem's output, an even number.
        size: (h, w) of the learnt map: half the training size, (128, 128) for 256x256 images.
        resize_mode: How the tables are brought to another grid: 'bicubic' or 'bilinear'.
    """

    def __init__(self, channels: int, size: tuple[int, int] = (128, 128), resize_mode: str = 'bicubic'):
        super().__init__()
        if channels % 2:
            raise ValueError(
                f'channels must be even, got {channels}: one half encodes columns, the other rows; an odd stem can '
                'take LearnedPositionEncoder1d'
            )
        self.resize_mode = check_resize_mode(resize_mode)
        height, width = size
        self.column_table = nn.Parameter(torch.zeros(1, channels // 2, 1, width))
        self.row_table = nn.Parameter(torch.zeros(1, channels // 2, height, 1))

    def forward(self, size: tuple[int, int]) -> Tensor:
        """The map on a grid of `size` = (h, w): (1, channels, h, w)."""
        columns = resize_position_map(self.column_table, (1, size[1]), self.resize_mode)
        rows = resize_position_map(self.row_table, (size[0], 1), self.resize_mode)
        return join_axes(columns, rows)
