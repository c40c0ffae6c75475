"""Import a library that is optional, with an error that says what to install."""

from types import ModuleType

_NO_OPERATORS = (
    'torchvision is installed but does not load beside this PyTorch ({reason}): its compiled operators are of another '
    'build, as when a CUDA build of it lies beside a CPU build of PyTorch. Install the torchvision that belongs to '
    'this PyTorch (https://pytorch.org/get-started){more}'
)


def import_timm() -> ModuleType:
    """timm.

    Raises:
        ImportError: timm or torchvision, which it needs, is missing or does not load.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(_missing('timm', 'timm', error)) from error
    except RuntimeError as error:
        raise ImportError(_NO_OPERATORS.format(reason=_line(error), more='; timm needs it')) from error
    return timm


def import_torchvision() -> ModuleType:
    """torchvision, with its models.

    Raises:
        ImportError: It is missing or does not load.
    """
    try:
        import torchvision.models
    except ImportError as error:
        raise ImportError(_missing('torchvision', 'torchvision', error)) from error
    except RuntimeError as error:
        raise ImportError(_NO_OPERATORS.format(reason=_line(error), more='')) from error
    return torchvision


def import_transformers() -> ModuleType:
    """transformers.

    Raises:
        ImportError: It is missing, or a torchvision that does not load keeps its models from loading.
    """
    try:
        import transformers
        from transformers.models.vit.modeling_vit import ViTModel  # noqa: F401  (its models are loaded on first use)
    except ImportError as error:
        raise ImportError(_missing('transformers', 'hf', error)) from error
    except RuntimeError as error:
        more = ', or uninstall it: transformers works without'
        raise ImportError(_NO_OPERATORS.format(reason=_line(error), more=more)) from error
    return transformers


def import_huggingface_hub() -> ModuleType:
    """huggingface_hub, which finds and downloads published files.

    Raises:
        ImportError: It is missing.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(_missing('huggingface_hub', 'hf', error)) from error
    return huggingface_hub


def _missing(library: str, extra: str, error: ImportError) -> str:
    name = getattr(error, 'name', None) or library
    needed = f'{library} is needed' if name.split('.')[0] == library else f'{library} needs {name}, which is missing'
    if extra == 'hf':
        return f"{needed}: pip install 'mmliir[hf]'"
    # Both of these pin a PyTorch, and pip would replace the one that is there.
    return f'{needed}: pip install --no-deps {name} (and the torchvision of your PyTorch; see docs/features.md)'


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
