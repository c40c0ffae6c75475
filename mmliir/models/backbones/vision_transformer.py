"""The plain vision transformer as a dense feature: the patch tokens of the last block."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmliir.registry import MODELS

_NORM_EPS = 1e-6  # of every layer norm, in DINO and timm


class SelfAttention(nn.Module):
    """Soft-max attention of every token to every token; one linear layer makes queries, keys and values."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        qkv = self.qkv(tokens).unflatten(2, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, C / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and added to its input (pre-norm)."""

    def __init__(self, channels: int, heads: int, mlp_ratio: float):
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.norm1 = nn.LayerNorm(channels, eps=_NORM_EPS)
        self.attn = SelfAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


def resize_position_grid(grid: Tensor, size: tuple[int, int], how: str) -> Tensor:
    """Bring learnt position vectors to another grid, bicubically.

    Args:
        grid: (1, C, h, w).
        size: (h', w').
        how: 'dino' samples at the scale `(h' + 0.1) / h`, which differs a little from that of the sizes
            (facebookresearch/dino, `interpolate_pos_encoding` and its issue 8); 'timm' samples at the sizes' scale
            and averages when it shrinks (timm, `resample_abs_pos_embed`).

    Returns:
        (1, C, h', w'); the grid itself when it has that size.
    """
    if tuple(grid.shape[2:]) == tuple(size):
        return grid
    with torch.autocast(grid.device.type, enabled=False):
        if how == 'timm':
            return F.interpolate(grid, size=size, mode='bicubic', antialias=True)
        scale = tuple((new + 0.1) / old for new, old in zip(size, grid.shape[2:], strict=True))
        return F.interpolate(grid, scale_factor=scale, mode='bicubic')


@MODELS.register_module()
class VisionTransformer(BaseModule):
    """ViT (Dosovitskiy et al., ICLR 2021) with a class token and learnt positions, without a head.

    Args:
        patch_size: Side of a patch in pixels; the stride of the features.
        channels: Of a token: 192 (tiny), 384 (small), 768 (base).
        depth: Number of blocks.
        heads: Of the attention: 3 (tiny), 6 (small), 12 (base).
        position_grid: (h, w) of the learnt positions: (14, 14) for patches of 16 pixels and training at 224x224.
        mlp_ratio: Hidden width of the perceptrons over `channels`.
        position_resize: How positions come to another grid, 'dino' or 'timm'; see `resize_position_grid`.
    """

    def __init__(
        self,
        patch_size: int = 16,
        channels: int = 384,
        depth: int = 12,
        heads: int = 6,
        position_grid: Sequence[int] = (14, 14),
        mlp_ratio: float = 4.0,
        position_resize: str = 'dino',
    ):
        super().__init__()
        if channels % heads:
            raise ValueError(f'channels must be a multiple of heads, got {channels} and {heads}')
        if position_resize not in ('dino', 'timm'):
            raise ValueError(f"position_resize must be 'dino' or 'timm', got {position_resize!r}")
        self.stride = patch_size
        self.out_channels = channels
        self.position_grid = tuple(position_grid)
        self.position_resize = position_resize
        self.patch_embed = nn.Conv2d(3, channels, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + position_grid[0] * position_grid[1], channels))
        self.blocks = nn.Sequential(*[TransformerBlock(channels, heads, mlp_ratio) for _ in range(depth)])
        self.norm = nn.LayerNorm(channels, eps=_NORM_EPS)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def position_tokens(self, size: tuple[int, int]) -> Tensor:
        """(1, 1 + h * w, channels): the class token's position, then those of an (h, w) grid row by row."""
        of_class, of_patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = of_patches.transpose(1, 2).unflatten(2, self.position_grid)
        grid = resize_position_grid(grid, size, self.position_resize)
        return torch.cat([of_class, grid.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, channels, H / patch_size, W / patch_size): last block, after the norm.

        Raises:
            ValueError: H or W is no multiple of the patch size.
        """
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(
                f'images are {height}x{width}, but patches are {self.stride}x{self.stride} and both sides must be '
                "multiples of that: use the protocol 'dino', which rounds the long side down to a multiple of 64, and "
                f'a --short-side that is a multiple of {self.stride}'
            )
        patches = self.patch_embed(images)
        size = patches.shape[2:]
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = self.norm(self.blocks(tokens + self.position_tokens(size)))
        return tokens[:, 1:].transpose(1, 2).unflatten(2, size)
