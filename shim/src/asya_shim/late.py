"""Rows for modules of the standard library, applied when such a module is (or already was) imported."""

from __future__ import annotations

import sys

from asya_shim import strict, wrappers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Set, Tuple

ROWS: List[Tuple[str, str, Callable[[Any], Any]]] = [*strict.ROWS, *wrappers.ROWS]


class Finder:
    """First on `sys.meta_path`: lets the others find a module, and tells when it has been executed."""

    def __init__(self, names: Set[str], loaded: Callable[[str], None]) -> None:
        self._names = names
        self._loaded = loaded

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec that the other finders have for one of our modules, with a loader that reports back."""
        if name not in self._names:
            return None
        self._names.discard(name)
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self._loaded)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """A loader that runs a callback behind the real one."""

    def __init__(self, loader: Any, loaded: Callable[[str], None]) -> None:
        self._loader = loader
        self._loaded = loaded

    def create_module(self, spec: Any) -> Any:
        """What the real loader creates."""
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Execute it by the real loader, show that one from now on, and report."""
        module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._loaded(module.__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
