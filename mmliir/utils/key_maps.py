"""Which of our weights a weight of another project is: one table a family, names only.

A table turns names of theirs into names of ours, or says why a weight of theirs is not needed. What no rule knows is
never dropped in silence: `mmliir.apis.convert` reports it and refuses the file.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """What becomes of the weights whose whole name matches.

    Attributes:
        pattern: Regular expression for the whole name, without the family's prefixes.
        ours: Our name, with `\\1` for groups; None: the weight is ignored.
        reason: Why it is ignored.
    """

    pattern: str
    ours: str | None
    reason: str = ''


@dataclass(frozen=True)
class KeyMap:
    """The weights of a family of checkpoints.

    Attributes:
        source: Where names and architecture were read.
        rules: The first that matches decides.
        configs: Files of `configs/frozen/` that weights of this family may fit, in the order in which they are tried.
        entries: Entries of the checkpoint that may hold the weights; the first that is there is taken. A checkpoint
            with none of them is taken as the weights themselves.
        prefixes: Taken off the names, each once, in this order, where they are there.
    """

    source: str
    rules: tuple[Rule, ...]
    configs: tuple[str, ...]
    entries: tuple[str, ...] = ('state_dict',)
    prefixes: tuple[str, ...] = ('module.',)

    def look_up(self, name: str) -> Rule | None:
        """The rule for a weight of theirs; its `ours` is the full name. None: no rule knows it."""
        for prefix in self.prefixes:
            name = name.removeprefix(prefix)
        for rule in self.rules:
            match = re.fullmatch(rule.pattern, name)
            if match:
                return rule if rule.ours is None else Rule(rule.pattern, match.expand(rule.ours))
        return None


def optional_part(ours: str) -> str | None:
    """Prefix of a part that a config may do without although the checkpoint holds it: a late stage of a ResNet."""
    match = re.match(r'encoder\.backbone\.layer[2-4]\.', ours)
    return match[0] if match else None


def likely_families(names: Iterable[str]) -> list[str]:
    """Families whose rules know every one of these names and need at least one of them."""
    names = list(names)
    likely = []
    for family, key_map in KEY_MAPS.items():
        rules = [key_map.look_up(name) for name in names]
        if all(rules) and any(rule.ours for rule in rules):
            likely.append(family)
    return likely


_TRAINING_HEAD = 'a head that only training uses'
_CLASSIFIER = 'the classifier'
_BACKBONE = 'encoder.backbone.'

# torchvision.models.resnet, whose names most others keep
_RESNET_WEIGHT = r'((?:conv1|bn1)\.\w+|layer[1-4]\.\d+\.(?:conv\d|bn\d|downsample\.[01])\.\w+)'
_RESNET = (
    Rule(_RESNET_WEIGHT, _BACKBONE + r'\1'),
    Rule(r'fc\..+', None, _CLASSIFIER),
)
# timm.models.vision_transformer, and DINO's copy of it
_VIT = (
    Rule(r'(cls_token|pos_embed|norm\..+)', _BACKBONE + r'\1'),
    Rule(r'patch_embed\.proj\.(.+)', _BACKBONE + r'patch_embed.\1'),
    Rule(r'(blocks\.\d+\.(?:norm[12]|attn\.qkv|attn\.proj)\..+)', _BACKBONE + r'\1'),
    Rule(r'(blocks\.\d+\.mlp)\.fc1\.(.+)', _BACKBONE + r'\1.0.\2'),
    Rule(r'(blocks\.\d+\.mlp)\.fc2\.(.+)', _BACKBONE + r'\1.2.\2'),
)
_POST_CONVOLUTION = Rule(r'post_convolution\.(.+)', r'encoder.projection.conv.\1')

KEY_MAPS: dict[str, KeyMap] = {
    'liir': KeyMap(
        source='shasha521/LIIR_pytorch@21c7ba5, models/mast_momen.py and models/resnet.py',
        rules=(
            Rule(r'feature_extraction\.pos_embed1', 'encoder.position_encoder.position_map'),
            Rule(r'feature_extraction\.' + _RESNET_WEIGHT, _BACKBONE + r'\1'),
            _POST_CONVOLUTION,
            Rule(r'conv_semantic(?:_k)?\..+', None, 'used by training only: the head of the inter-video branch'),
            Rule(r'colorizer\..+', None, 'used by training only: the queue of other videos'),
        ),
        configs=('liir_pytorch_r18',),
    ),
    'mast': KeyMap(
        source='zlai0/MAST@a57b043, models/mast.py and models/submodule.py',
        rules=(
            Rule(r'feature_extraction\.conv1\.0\.(.+)', _BACKBONE + r'conv1.\1'),
            Rule(r'feature_extraction\.conv1\.1\.(.+)', _BACKBONE + r'bn1.\1'),
            Rule(r'feature_extraction\.(layer[1-4]\.\d+)\.left\.0\.(.+)', _BACKBONE + r'\1.conv1.\2'),
            Rule(r'feature_extraction\.(layer[1-4]\.\d+)\.left\.1\.(.+)', _BACKBONE + r'\1.bn1.\2'),
            Rule(r'feature_extraction\.(layer[1-4]\.\d+)\.left\.3\.(.+)', _BACKBONE + r'\1.conv2.\2'),
            Rule(r'feature_extraction\.(layer[1-4]\.\d+)\.left\.4\.(.+)', _BACKBONE + r'\1.bn2.\2'),
            Rule(r'feature_extraction\.(layer[1-4]\.\d+)\.shortcut\.([01]\..+)', _BACKBONE + r'\1.downsample.\2'),
            _POST_CONVOLUTION,
        ),
        configs=('mast_pytorch_r18',),
    ),
    'crw': KeyMap(
        source='ajabri/videowalk@047f3f4, code/model.py, code/resnet.py and code/test.py',
        rules=(
            # a convolution behind a separate layer that reflects the border, in older checkpoints
            Rule(r'encoder\.model\.((?:layer[1-4]\.\d+\.)?conv\d)\.1\.weight', _BACKBONE + r'\1.weight'),
            Rule(r'encoder\.model\.' + _RESNET_WEIGHT, _BACKBONE + r'\1'),
            Rule(r'selfsim_(?:fc|head)\..+', None, _TRAINING_HEAD),
        ),
        configs=('crw_r18',),
        entries=('model', 'state_dict'),
    ),
    'vfs': KeyMap(
        source='xvjiarui/VFS@8e055cc, mmaction/models/backbones/resnet.py and models/trackers/',
        rules=(
            Rule(r'backbone\.conv1\.conv\.(.+)', _BACKBONE + r'conv1.\1'),
            Rule(r'backbone\.conv1\.bn\.(.+)', _BACKBONE + r'bn1.\1'),
            Rule(r'backbone\.(layer[1-4]\.\d+\.conv\d)\.conv\.(.+)', _BACKBONE + r'\1.\2'),
            Rule(r'backbone\.(layer[1-4]\.\d+)\.conv(\d)\.bn\.(.+)', _BACKBONE + r'\1.bn\2.\3'),
            Rule(r'backbone\.(layer[1-4]\.\d+\.downsample)\.conv\.(.+)', _BACKBONE + r'\1.0.\2'),
            Rule(r'backbone\.(layer[1-4]\.\d+\.downsample)\.bn\.(.+)', _BACKBONE + r'\1.1.\2'),
            Rule(r'(?:img|cls)_head\..+', None, _TRAINING_HEAD),
            Rule(r'iteration', None, 'counts training steps'),
        ),
        configs=('vfs_r18', 'vfs_r50'),
    ),
    'dino': KeyMap(
        source='facebookresearch/dino@7c446df, vision_transformer.py, main_dino.py and utils.py',
        rules=(*_VIT, *_RESNET, Rule(r'head\..+', None, _TRAINING_HEAD)),
        configs=('dino_vits16', 'dino_vits8', 'dino_r50'),
        entries=('teacher', 'student', 'state_dict'),
        prefixes=('module.', 'backbone.'),
    ),
    'moco': KeyMap(
        source='facebookresearch/moco, moco/builder.py (v1 and v2)',
        rules=(
            Rule(r'encoder_q\.' + _RESNET_WEIGHT, _BACKBONE + r'\1'),
            Rule(r'encoder_q\.fc\..+', None, _TRAINING_HEAD),
            Rule(r'encoder_k\..+', None, 'used by training only: the momentum copy of the encoder'),
            Rule(r'queue(?:_ptr)?', None, 'used by training only: the queue of negatives'),
        ),
        configs=('moco_r50',),
    ),
    'torchvision': KeyMap(
        source='pytorch/vision, torchvision/models/resnet.py',
        rules=_RESNET,
        configs=('imagenet_r18', 'imagenet_r50'),
    ),
    'timm': KeyMap(
        source='huggingface/pytorch-image-models, timm/models/resnet.py and timm/models/vision_transformer.py',
        rules=(*_RESNET, *_VIT, Rule(r'head\..+', None, _CLASSIFIER)),
        configs=('imagenet_r18', 'imagenet_r50', 'timm_vits16'),
    ),
}
