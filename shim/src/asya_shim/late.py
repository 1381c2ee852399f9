"""Rows applied when a module is (or already was) imported: those of the standard library, and whose have adapters."""

from __future__ import annotations

import sys

from asya_shim import strict, wrappers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Set, Tuple

ROWS: List[Tuple[str, str, Callable[[Any], Any]]] = [*strict.ROWS, *wrappers.ROWS]

ADAPTED: Dict[str, str] = {
    "cv2": "opencv",
    "h5py._hl.base": "hdf5",
    "h5py._hl.files": "hdf5",
    "polars.dataframe.frame": "polars",
    "polars.io.avro": "polars",
    "polars.io.csv.functions": "polars",
    "polars.io.ipc.functions": "polars",
    "polars.io.json.read": "polars",
    "polars.io.lines": "polars",
    "polars.io.ndjson": "polars",
    "polars.io.parquet.functions": "polars",
    "polars.lazyframe.frame": "polars",
    "pyarrow": "arrow",
    "pyarrow.csv": "arrow",
    "pyarrow.dataset": "arrow",
    "pyarrow.feather": "arrow",
    "pyarrow.fs": "arrow",
    "pyarrow.json": "arrow",
    "pyarrow.orc": "arrow",
    "pyarrow.parquet.core": "arrow",
    "safetensors._safetensors_rust": "safetensors",
    "scipy.io._fast_matrix_market": "scipy",
    "torch.jit._serialization": "torch",
    "torch.serialization": "torch",
    "zarr.storage._local": "zarr",
}
"""Modules of other people's, and the room of `adapters` with their rows, not imported before one of them is."""


class Finder:
    """First on `sys.meta_path`: lets the others find a module, and tells when it has been executed."""

    def __init__(self, names: Set[str], loaded: Callable[[str], None]) -> None:
        self._names = names
        self._loaded = loaded

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec that the other finders have for one of our modules, with a loader that reports back."""
        if name not in self._names:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
                return spec
        return None

    def executing(self, name: str) -> None:
        """No longer one of ours: what its code imports by the same name (OpenCV does) is another module."""
        self._names.discard(name)

    def executed(self, name: str, failed: bool) -> None:
        """Its code has run, and may run again: by another import where it failed, by `reload` where it did not."""
        self._names.add(name)
        if not failed:
            self._loaded(name)


class _Loader:
    """A loader that tells the finder before and behind the real one."""

    def __init__(self, loader: Any, finder: Finder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: Any) -> Any:
        """What the real loader creates."""
        create = getattr(self._loader, "create_module", None)
        return None if create is None else create(spec)

    def exec_module(self, module: Any) -> None:
        """Execute it by the real loader, show that one from now on, and report."""
        module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        name = module.__name__
        self._finder.executing(name)
        try:
            if hasattr(self._loader, "exec_module"):
                self._loader.exec_module(module)
            else:
                self._loader.load_module(name)  # of a zip archive, up to Python 3.9
        except BaseException:
            self._finder.executed(name, True)
            raise
        self._finder.executed(name, False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
