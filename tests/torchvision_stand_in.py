"""Lets `import torchvision` and `import timm` work beside a PyTorch of another build, in tests only.

torchvision registers functions for its compiled operators when it is imported, and fails where a PyTorch of another
build cannot load them. The models tested here use none of them, so empty declarations are enough. Where torchvision is
not installed at all, timm gets modules that hold just the names that it imports.
"""

import importlib.machinery
import importlib.util
import sys
import types

import torch

_OPERATORS = (
    'nms', 'qnms', 'roi_align', 'qroi_align', '_roi_align_backward', 'ps_roi_align', '_ps_roi_align_backward',
    'roi_pool', '_roi_pool_backward', 'ps_roi_pool', '_ps_roi_pool_backward', 'deform_conv2d',
    '_deform_conv2d_backward',
)  # fmt: skip
_LIBRARIES = []


def stand_in() -> str:
    """Make `import torchvision` work, whatever is installed; return what was done.

    Returns:
        'real': it works by itself; 'operators': the installed one, with declarations of its missing operators;
        'modules': empty modules for timm.
    """
    if importlib.util.find_spec('torchvision') is None:
        _put_modules()
        return 'modules'
    try:
        import torchvision  # noqa: F401

        return 'modules' if getattr(torchvision, 'is_stand_in', False) else 'real'
    except RuntimeError:
        pass
    for name in [name for name in sys.modules if name.split('.')[0] == 'torchvision']:
        del sys.modules[name]
    library = torch.library.Library('torchvision', 'FRAGMENT')
    _LIBRARIES.append(library)  # declarations live as long as this object
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(f'{name}(Tensor x) -> Tensor')
    import torchvision  # noqa: F401

    return 'operators'


def _put_modules() -> None:
    class FrozenBatchNorm2d(torch.nn.Module):
        pass

    class Anything:
        def __init__(self, *args, **options):
            pass

    def module(name: str, **content) -> types.ModuleType:
        made = types.ModuleType(name)
        made.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        made.__path__ = []
        vars(made).update(content)
        sys.modules[name] = made
        return made

    class Mode:
        NEAREST, BILINEAR, BICUBIC, BOX, HAMMING, LANCZOS = 'nearest bilinear bicubic box hamming lanczos'.split()

    functional = module('torchvision.transforms.functional', InterpolationMode=Mode)
    names = 'Compose RandomResizedCrop Resize CenterCrop ToTensor Normalize RandomHorizontalFlip RandomVerticalFlip'
    transforms = module(
        'torchvision.transforms',
        functional=functional,
        InterpolationMode=Mode,
        **{name: Anything for name in [*names.split(), 'ColorJitter', 'RandomApply', 'RandomChoice', 'PILToTensor']},
    )
    datasets = module(
        'torchvision.datasets',
        **{name: Anything for name in ('CIFAR100', 'CIFAR10', 'MNIST', 'KMNIST', 'FashionMNIST', 'ImageFolder')},
    )
    misc = module('torchvision.ops.misc', FrozenBatchNorm2d=FrozenBatchNorm2d)
    ops = module('torchvision.ops', misc=misc)
    graph = {'get_graph_node_names': None, 'create_feature_extractor': None}
    extraction = module('torchvision.models.feature_extraction', **graph)
    models = module('torchvision.models', feature_extraction=extraction)
    parts = {'transforms': transforms, 'datasets': datasets, 'ops': ops, 'models': models}
    module('torchvision', is_stand_in=True, __version__='0', **parts)
