"""Which of our weights a weight of another project is: one table a family, of names, and the recipe of its weights.

A table turns names of theirs into names of ours, or says why a weight of theirs is not needed. What no rule knows is
never dropped in silence: `mmliir.apis.convert` reports it and refuses the file.
"""

import re
from collections.abc import Iterable, Mapping
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
        recipe: What the meaning of the weights depends on, in the form of a model's `recipe`, as far as it is the same
            for all checkpoints of the family. Converted weights carry it, and a model of another recipe is refused.
        entries: Entries of the checkpoint that may hold the weights; the first that is there is taken. A checkpoint
            with none of them is taken as the weights themselves.
        prefixes: Taken off the names, each once, in this order, where they are there.
        training_config: File of `configs/` that trains such weights on, at their recipe; None: there is none.
    """

    source: str
    rules: tuple[Rule, ...]
    configs: tuple[str, ...]
    recipe: Mapping[str, object]
    entries: tuple[str, ...] = ('state_dict',)
    prefixes: tuple[str, ...] = ('module.',)
    training_config: str | None = None

    def look_up(self, name: str) -> Rule | None:
        """The rule for a weight of theirs; its `ours` is the full name. None: no rule knows it."""
        for prefix in self.prefixes:
            name = name.removeprefix(prefix)
        for rule in self.rules:
            match = re.fullmatch(rule.pattern, name)
            if match:
                return rule if rule.ours is None else Rule(rule.pattern, match.expand(rule.ours))
        return None


# parts that a config may do without although the checkpoint holds them -> why they are not needed then
_OPTIONAL_PARTS = {
    r'encoder\.backbone\.layer[2-4]\.': 'a stage behind the one whose features the config takes',
    r'inter\.(?:projection|momentum_encoder\.encoder\.conv)\.': (
        'used by training only: the head of the inter-video branch, which the config has not'
    ),
}


def optional_part(ours: str) -> tuple[str, str] | None:
    """(prefix of the part, reason) where a weight of ours is of a part that a model may do without."""
    for pattern, reason in _OPTIONAL_PARTS.items():
        match = re.match(pattern, ours)
        if match:
            return match[0], reason
    return None


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
# the colours of MAST's and LIIR_pytorch's loaders, and of most others
_LAB = {'color_space': 'lab', 'mean': [50.0, 0.0, 0.0], 'std': [50.0, 127.0, 127.0]}
_RGB = {'color_space': 'rgb'}
_IMAGENET = {**_RGB, 'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225]}
# both compare by plain dot products, not divided by anything
_UNSCALED = {**_LAB, 'temperature': 1.0, 'normalize': False}
_POST_CONVOLUTION = Rule(r'post_convolution\.(.+)', r'encoder.projection.conv.\1')

KEY_MAPS: dict[str, KeyMap] = {
    'liir': KeyMap(
        source='shasha521/LIIR_pytorch@21c7ba5, models/mast_momen.py and models/resnet.py',
        rules=(
            Rule(r'feature_extraction\.pos_embed1', 'encoder.position_encoder.position_map'),
            Rule(r'feature_extraction\.' + _RESNET_WEIGHT, _BACKBONE + r'\1'),
            _POST_CONVOLUTION,
            Rule(r'conv_semantic\.(.+)', r'inter.projection.conv.\1'),
            Rule(r'conv_semantic_k\.(.+)', r'inter.momentum_encoder.encoder.conv.\1'),
            Rule(r'colorizer\..+', None, 'used by training only: the queue of other videos'),
        ),
        configs=('liir_pytorch_r18',),
        recipe=_UNSCALED,
        training_config='liir_r18_ytvos_compat',
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
        recipe=_UNSCALED,
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
        recipe=_IMAGENET,
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
        recipe=_IMAGENET,
    ),
    'dino': KeyMap(
        source='facebookresearch/dino@7c446df, vision_transformer.py, main_dino.py and utils.py',
        rules=(*_VIT, *_RESNET, Rule(r'head\..+', None, _TRAINING_HEAD)),
        configs=('dino_vits16', 'dino_vits8', 'dino_r50'),
        # not std: trained with 0.229, its ViTs are evaluated with 0.228
        recipe={**_RGB, 'mean': _IMAGENET['mean']},
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
        recipe=_IMAGENET,
    ),
    'torchvision': KeyMap(
        source='pytorch/vision, torchvision/models/resnet.py',
        rules=_RESNET,
        configs=('imagenet_r18', 'imagenet_r50'),
        recipe=_IMAGENET,
    ),
    'timm': KeyMap(
        source='huggingface/pytorch-image-models, timm/models/resnet.py and timm/models/vision_transformer.py',
        rules=(*_RESNET, *_VIT, Rule(r'head\..+', None, _CLASSIFIER)),
        configs=('imagenet_r18', 'imagenet_r50', 'timm_vits16'),
        recipe=_RGB,  # its models differ in mean and std
    ),
}
