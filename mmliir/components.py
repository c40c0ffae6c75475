"""Classes that configs name and commands build, kept without MMEngine.

A command that scores files needs a data set and a metric by name and nothing else of MMEngine, which takes 0.4 s to
import. Such a class is registered here; `mmliir.registry`, which MMEngine imports when it looks a name up, hands all of
them to MMEngine's registries. Classes that need PyTorch or MMEngine anyway register there at once.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

_REGISTRY = 'mmliir.registry'


class Components:
    """Classes of one kind by name.

    Args:
        location: Module whose import registers all classes of this kind.
    """

    def __init__(self, location: str) -> None:
        self._location = location
        self._classes: dict[str, type] = {}
        self._registry: Any = None

    def register_module(self) -> Callable[[type], type]:
        """A decorator that registers a class under its name, here and with MMEngine."""

        def register(component: type) -> type:
            if self._registry is not None:
                self._registry.register_module(module=component)
            self._classes[component.__name__] = component
            return component

        return register

    def hand_to(self, registry: Any) -> None:
        """Register all classes, those that come later too, with a registry of MMEngine, which builds from now on."""
        for component in self._classes.values():
            registry.register_module(module=component)
        self._registry = registry

    def build(self, config: dict) -> Any:
        """Build what a config names: `dict(type=NAME, argument=value, ...)`.

        MMEngine is loaded for names of others alone; once it is loaded its registry decides, which may hold more.

        Raises:
            KeyError: No class of this name.
            TypeError: An argument is missing or unknown.
        """
        if self._registry is None:
            import_module(self._location)
            component = self._classes.get(config.get('type'))
            if component is not None:
                return component(**{name: value for name, value in config.items() if name != 'type'})
            import_module(_REGISTRY)  # hands itself to us
        return self._registry.build(config)


DATASETS = Components('mmliir.datasets')
METRICS = Components('mmliir.evaluation.metrics')
