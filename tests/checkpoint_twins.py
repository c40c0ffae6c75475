"""Networks of other projects with random weights: the names of their weights and what they compute, written anew.

Nothing here uses our models. Each function of `TWINS` returns a `Twin`.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Twin:
    """A checkpoint as its project writes it.

    Attributes:
        family: Name for `mmliir convert`.
        config: File of configs/frozen/ without suffix.
        checkpoint: What `torch.save` is given.
        needed: Names of the weights that its features depend on.
        ignored: Names of the others.
        feature: Normalised images (B, 3, H, W) -> (B, C, h, w), as the project computes them for label propagation.
    """

    family: str
    config: str
    checkpoint: dict
    needed: set[str]
    ignored: set[str]
    feature: Callable[[Tensor], Tensor]


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """No weight and no statistic is left at 0 or 1, so that two exchanged tensors show."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(module.weight, 0.6, 1.2, generator=generator)
            nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2, generator=generator)
            nn.init.uniform_(module.running_var, 0.7, 1.4, generator=generator)
            module.num_batches_tracked.fill_(7)
    for name, parameter in network.named_parameters():
        if name.endswith(('pos_embed', 'pos_embed1', 'cls_token')):
            nn.init.normal_(parameter, 0.0, 0.3, generator=generator)
    return network.eval()


def names(network: nn.Module) -> set[str]:
    return set(network.state_dict())


# -- ResNets ------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """A block with torchvision's names."""

    def __init__(self, inside: int, width: int, outside: int, stride: int, conv3x3):
        super().__init__()
        self.deep = outside != width
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False) if self.deep else conv3x3(inside, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride if self.deep else 1)
        self.bn2 = nn.BatchNorm2d(width)
        if self.deep:
            self.conv3 = nn.Conv2d(width, outside, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(outside)
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.deep:
            out = self.bn3(self.conv3(F.relu(out)))
        return F.relu(out + (self.downsample(x) if hasattr(self, 'downsample') else x))


def plain_conv(inside, outside, stride, size=3):
    return nn.Conv2d(inside, outside, size, stride, size // 2, bias=False)


def reflecting_conv(inside, outside, stride, size=3):
    return nn.Sequential(nn.ReflectionPad2d(size // 2), nn.Conv2d(inside, outside, size, stride, bias=False))


class ClassificationResNet(nn.Module):
    """ResNet-18 or 50 as it is trained, strides (1, 2, 2, 2), with a classifier."""

    def __init__(self, depth: int, conv=plain_conv, fc: nn.Module | None = None):
        super().__init__()
        self.conv1 = conv(3, 64, 2, 7)
        self.bn1 = nn.BatchNorm2d(64)
        inside = 64
        for stage, count in enumerate((2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3), start=1):
            width = 32 * 2**stage
            outside = width if depth == 18 else 4 * width
            blocks = []
            for number in range(count):
                stride = 2 if stage > 1 and number == 0 else 1
                blocks.append(Residual(inside, width, outside, stride, conv))
                inside = outside
            self.add_module(f'layer{stage}', nn.Sequential(*blocks))
        if fc is not None:
            self.fc = fc

    def stage3(self, images: Tensor) -> Tensor:
        """Output of layer3 after the stride of its convolutions was taken away, as CRW and VFS do for testing."""
        for module in self.layer3.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        return self.layer3(self.layer2(self.layer1(x)))


def split(weights: dict, ignored: tuple[str, ...]) -> tuple[set[str], set[str]]:
    left = {name for name in weights if name.startswith(ignored)}
    return set(weights) - left, left


def torchvision(depth: int, family: str = 'torchvision', counters: bool = True) -> Twin:
    network = randomise(ClassificationResNet(depth, fc=nn.Linear(512 if depth == 18 else 2048, 10)), depth)
    weights = network.state_dict()
    if not counters:  # files of PyTorch before 0.4.1
        weights = {name: value for name, value in weights.items() if not name.endswith('num_batches_tracked')}
    return Twin(
        family, f'imagenet_r{depth}', weights, *split(weights, ('fc.', 'layer4.')), network.stage3
    )


def moco(version: int) -> Twin:
    class Moco(nn.Module):
        def __init__(self):
            super().__init__()

            def head():
                last = nn.Linear(2048, 128)
                return last if version == 1 else nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), last)

            self.encoder_q = ClassificationResNet(50, fc=head())
            self.encoder_k = ClassificationResNet(50, fc=head())
            self.register_buffer('queue', torch.randn(128, 16))
            self.register_buffer('queue_ptr', torch.zeros(1, dtype=torch.long))

    network = randomise(Moco(), version)
    weights = {f'module.{name}': value for name, value in network.state_dict().items()}
    left = ('module.encoder_q.fc.', 'module.encoder_q.layer4.', 'module.encoder_k.', 'module.queue')
    checkpoint = {'epoch': 200, 'arch': 'resnet50', 'state_dict': weights, 'optimizer': {'state': {}}}
    return Twin('moco', 'moco_r50', checkpoint, *split(weights, left), network.encoder_q.stage3)


def crw(legacy: bool) -> Twin:
    network = randomise(ClassificationResNet(18, conv=reflecting_conv), 5)
    weights = {f'encoder.model.{name}': value for name, value in network.state_dict().items()}
    if not legacy:  # `padding_mode` of the convolution itself
        weights = {
            name.replace('.1.weight', '.weight') if 'conv' in name else name: value for name, value in weights.items()
        }
    weights |= {'selfsim_fc.0.weight': torch.randn(128, 512), 'selfsim_fc.0.bias': torch.randn(128)}
    checkpoint = {'model': weights, 'epoch': 7, 'args': argparse.Namespace(lr=1e-4, remove_layers=[], device='cuda')}
    return Twin(
        'crw', 'crw_r18', checkpoint, *split(weights, ('selfsim_fc.', 'encoder.model.layer4.')), network.stage3
    )


def vfs(depth: int) -> Twin:
    """mmcv wraps each convolution and its norm in a module with children `conv` and `bn`."""
    network = randomise(ClassificationResNet(depth), 6)

    def renamed(name):
        parts = name.split('.')
        for i, part in enumerate(parts):
            if part.startswith('conv'):
                parts[i] = f'{part}.conv'
            elif part.startswith('bn'):
                parts[i] = f'conv{part[2:]}.bn'
            elif i and parts[i - 1] == 'downsample':
                parts[i] = ('conv', 'bn')[int(part)]
        return 'backbone.' + '.'.join(parts)

    weights = {renamed(name): value for name, value in network.state_dict().items()}
    assert 'backbone.layer2.0.downsample.bn.running_mean' in weights and 'backbone.layer1.1.conv2.bn.bias' in weights
    weights |= {'iteration': torch.tensor(3.0), 'img_head.projection_fcs.0.weight': torch.randn(4, 4)}
    left = ('iteration', 'img_head.', 'backbone.layer4.')
    checkpoint = {'meta': {'epoch': 100, 'config': 'import os'}, 'state_dict': weights}
    return Twin('vfs', f'vfs_r{depth}', checkpoint, *split(weights, left), network.stage3)


# -- the ResNet-18 of MAST and LIIR_pytorch -----------------------------------------------------------------

_STAGES = ((64, 64, 1), (64, 128, 2), (128, 256, 1), (256, 256, 1))  # channels in, channels out, stride


def liir() -> Twin:
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = plain_conv(3, 64, 2, 7)
            self.bn1 = nn.BatchNorm2d(64)
            self.pos_embed1 = nn.Parameter(torch.zeros(1, 64, 128, 128))
            for number, (inside, outside, stride) in enumerate(_STAGES, start=1):
                first = Residual(inside, outside, outside, stride, plain_conv)
                second = Residual(outside, outside, outside, 1, plain_conv)
                self.add_module(f'layer{number}', nn.Sequential(first, second))

        def forward(self, x):
            x = F.relu(self.bn1(self.conv1(x)))
            x = x + F.interpolate(self.pos_embed1, size=(x.shape[2], x.shape[3]), mode='bicubic')
            return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.feature_extraction = Encoder()
            self.post_convolution = nn.Conv2d(256, 64, 3, padding=1)
            self.conv_semantic = nn.Conv2d(256, 128, 3, 2, 1)
            self.conv_semantic_k = nn.Conv2d(256, 128, 3, 2, 1)
            self.colorizer = nn.Module()
            self.colorizer.register_buffer('feats_queue', torch.randn(12, 128, 4, 4))
            self.colorizer.register_buffer('refs_queue', torch.arange(12))
            self.colorizer.register_buffer('flag', torch.zeros(1))

    network = randomise(Network(), 7)
    return Twin(
        'liir',
        'liir_pytorch_r18',
        {'epoch': 4, 'state_dict': network.state_dict()},
        *split(network.state_dict(), ('conv_semantic', 'colorizer.')),
        lambda images: network.post_convolution(network.feature_extraction(images)),
    )


def mast() -> Twin:
    class Block(nn.Module):
        def __init__(self, inside, outside, stride):
            super().__init__()
            self.left = nn.Sequential(
                plain_conv(inside, outside, stride),
                nn.BatchNorm2d(outside),
                nn.ReLU(),
                plain_conv(outside, outside, 1),
                nn.BatchNorm2d(outside),
            )
            self.shortcut = nn.Sequential()
            if stride != 1 or inside != outside:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
                )

        def forward(self, x):
            return F.relu(self.left(x) + self.shortcut(x))

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Sequential(plain_conv(3, 64, 2, 7), nn.BatchNorm2d(64), nn.ReLU())
            for number, (inside, outside, stride) in enumerate(_STAGES, start=1):
                self.add_module(
                    f'layer{number}', nn.Sequential(Block(inside, outside, stride), Block(outside, outside, 1))
                )

        def forward(self, x):
            return self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.feature_extraction = Encoder()
            self.post_convolution = nn.Conv2d(256, 64, 3, padding=1)

    network = randomise(Network(), 8)
    weights = {f'module.{name}': value for name, value in network.state_dict().items()}
    return Twin(
        'mast',
        'mast_pytorch_r18',
        {'epoch': 9, 'state_dict': weights, 'optimizer': {'state': {}, 'param_groups': [{'lr': 1e-3}]}},
        set(weights),
        set(),
        lambda images: network.post_convolution(network.feature_extraction(images)),
    )


# -- vision transformers ------------------------------------------------------------------------------------


class Transformer(nn.Module):
    """ViT-S with the names of timm and DINO; `resize` brings positions (1, C, 14, 14) to the image's grid."""

    def __init__(self, patch: int, resize, head: nn.Module | None = None):
        super().__init__()
        self.patch, self.resize, grid = patch, resize, 224 // patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 384))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, 384))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, 384, patch, patch)
        self.blocks = nn.ModuleList()
        for _ in range(12):
            block, block.attn, block.mlp = nn.Module(), nn.Module(), nn.Module()
            block.norm1, block.norm2 = nn.LayerNorm(384, eps=1e-6), nn.LayerNorm(384, eps=1e-6)
            block.attn.qkv, block.attn.proj = nn.Linear(384, 1152), nn.Linear(384, 384)
            block.mlp.fc1, block.mlp.fc2 = nn.Linear(384, 1536), nn.Linear(1536, 384)
            self.blocks.append(block)
        self.norm = nn.LayerNorm(384, eps=1e-6)
        if head is not None:
            self.head = head

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = images.shape[2] // self.patch, images.shape[3] // self.patch
        grid = 224 // self.patch
        learnt = self.pos_embed[:, 1:].reshape(1, grid, grid, 384).permute(0, 3, 1, 2)
        if (rows, columns) != (grid, grid):
            learnt = self.resize(learnt, rows, columns)
        assert learnt.shape[2:] == (rows, columns)
        x = (self.patch_embed.proj(images) + learnt).reshape(len(images), 384, -1).permute(0, 2, 1)
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).repeat(len(images), 1, 1), x], dim=1)
        for block in self.blocks:
            x = x + self.attend(block.attn, block.norm1(x))
            x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
        return self.norm(x)[:, 1:].reshape(len(images), rows, columns, 384).permute(0, 3, 1, 2)

    @staticmethod
    def attend(attn: nn.Module, x: Tensor) -> Tensor:
        """One head after the other: channels 64 i .. 64 i + 63 of each third."""
        query, key, value = attn.qkv(x).chunk(3, dim=2)
        heads = []
        for i in range(6):
            q, k, v = (part[..., 64 * i : 64 * (i + 1)] for part in (query, key, value))
            heads.append(torch.softmax(q @ k.mT / 8.0, dim=-1) @ v)
        return attn.proj(torch.cat(heads, dim=2))


def dino_resize(learnt: Tensor, rows: int, columns: int) -> Tensor:
    """DINO gives the scale, with 0.1 on top, and not the size."""
    scale = ((rows + 0.1) / learnt.shape[2], (columns + 0.1) / learnt.shape[3])
    return F.interpolate(learnt, scale_factor=scale, mode='bicubic')


def timm_resize(learnt: Tensor, rows: int, columns: int) -> Tensor:
    return F.interpolate(learnt, size=(rows, columns), mode='bicubic', antialias=True)


def dino_backbone(patch: int) -> Twin:
    """The file with the backbone alone."""
    network = randomise(Transformer(patch, dino_resize), patch)
    return Twin('dino', f'dino_vits{patch}', network.state_dict(), names(network), set(), network)


def dino_full() -> Twin:
    """The file that training writes: student and teacher, each with its head, and the options."""
    teacher, student = (randomise(Transformer(16, dino_resize), seed) for seed in (3, 4))
    head = {'head.mlp.0.weight': torch.randn(8, 384), 'head.last_layer.weight_g': torch.ones(8, 1)}
    weights = {f'backbone.{name}': value for name, value in teacher.state_dict().items()} | head
    of_student = {f'backbone.{name}': value for name, value in student.state_dict().items()} | head
    checkpoint = {
        'student': {f'module.{name}': value for name, value in of_student.items()},
        'teacher': weights,
        'optimizer': {'state': {}},
        'epoch': 800,
        'args': argparse.Namespace(arch='vit_small', patch_size=16),
        'dino_loss': {'center': torch.zeros(1, 8)},
    }
    return Twin('dino', 'dino_vits16', checkpoint, *split(weights, ('head.',)), teacher)


def dino_resnet() -> Twin:
    network = randomise(ClassificationResNet(50), 9)
    weights = network.state_dict()
    return Twin('dino', 'dino_r50', weights, *split(weights, ('layer4.',)), network.stage3)


def timm_vit() -> Twin:
    network = randomise(Transformer(16, timm_resize, nn.Linear(384, 10)), 2)
    weights = network.state_dict()
    return Twin('timm', 'timm_vits16', weights, *split(weights, ('head.',)), network)


TWINS: dict[str, Callable[[], Twin]] = {
    'liir': liir,
    'mast': mast,
    'crw': partial(crw, legacy=False),
    'crw_legacy': partial(crw, legacy=True),
    'vfs_r18': partial(vfs, 18),
    'vfs_r50': partial(vfs, 50),
    'dino_vits16': partial(dino_backbone, 16),
    'dino_vits8': partial(dino_backbone, 8),
    'dino_full': dino_full,
    'dino_r50': dino_resnet,
    'moco_v1': partial(moco, 1),
    'moco_v2': partial(moco, 2),
    'torchvision_r18': partial(torchvision, 18),
    'torchvision_r18_old': partial(torchvision, 18, counters=False),
    'torchvision_r50': partial(torchvision, 50),
    'timm_r18': partial(torchvision, 18, family='timm'),
    'timm_r50': partial(torchvision, 50, family='timm'),
    'timm_vits16': timm_vit,
}
