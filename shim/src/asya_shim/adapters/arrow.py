"""pyarrow: single files by an open file, datasets by the file system of `arrow_filesystem`."""

from __future__ import annotations

import errno
import functools
import os
import stat

from asya_shim.adapters.by_path import StandIn, by_descriptor, by_object, drop, of_state, place_of
from asya_shim.handles import is_failure
from asya_shim.layers import below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict

    from asya_shim.adapters.by_path import Rows


def _source(file: Any, *_: Any) -> Any:
    from asya_shim.adapters.arrow_threads import source

    return source(file)


def _lend(file: Any, *_: Any) -> Any:
    from asya_shim.adapters.arrow_threads import lend

    return lend(file)


def _resolve_filesystem(real: Callable[..., Any]) -> Any:
    def resolve(path: Any, filesystem: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not _is_local(filesystem):
            return real(path, filesystem, *args, **kwargs)
        from asya_shim.adapters.arrow_filesystem import filesystem as state

        return state(), os.fspath(path)

    return resolve


def _multiple_sources(real: Callable[..., Any]) -> Any:
    @functools.wraps(real)
    def ensure(*args: Any, **kwargs: Any) -> Any:
        paths = args[0] if args else kwargs.get("paths")
        filesystem = args[1] if len(args) > 1 else kwargs.get("filesystem")
        if not _is_local(filesystem) or not paths or any(place_of(path) is None for path in paths):
            return real(*args, **kwargs)
        from asya_shim.adapters.arrow_filesystem import filesystem as state

        names = [os.fspath(path) for path in paths]
        for name in names:
            if stat.S_ISDIR(os.stat(name).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        return state(), names

    return ensure


def _is_local(filesystem: Any) -> bool:
    return filesystem is None or type(filesystem).__name__ == "LocalFileSystem"


def _os_file(real: Any) -> Any:
    def open_file(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        from asya_shim.adapters.arrow_filesystem import StateFile

        return StateFile.over(open(path, mode.replace("b", "") + "b"))

    def call(path: Any, *args: Any, **kwargs: Any) -> Any:
        return (real if place_of(path) is None else open_file)(path, *args, **kwargs)

    return StandIn("pyarrow", real, call)


def _parquet_init(real: Callable[..., Any]) -> Any:
    def __init__(self: Any, where: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if len(args) > 1 or kwargs.get("filesystem") is not None:
            real(self, where, *args, **kwargs)
            return
        file = _lend(open(where, "wb"))  # noqa: SIM115
        try:
            real(self, file, *args, **kwargs)
        except BaseException:
            drop(file)
            raise
        self.where, self.file_handle, self._asya_file = where, file, file

    return __init__


def _parquet_close(real: Callable[..., Any]) -> Any:
    @functools.wraps(real)
    def close(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return real(self, *args, **kwargs)
        except BaseException:
            _drop_own(self)
            raise

    return close


def _parquet_exit(real: Callable[..., Any]) -> Any:
    @functools.wraps(real)
    def __exit__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        error = args[1] if len(args) > 1 else None
        if error is not None and is_failure(error):
            raw = below(getattr(self, "_asya_file", None))
            if raw is not None:
                raw.abandon()
        return real(self, *args, **kwargs)

    return __exit__


def _drop_own(self: Any) -> None:
    file = getattr(self, "_asya_file", None)
    if file is not None:
        drop(file)


def _arrow_source(file: Any, path: str) -> Any:
    """As Arrow opens a path to read a text from: decompressed, by the name's ending."""
    import pyarrow

    try:
        codec = pyarrow.Codec.detect(path).name
    except (TypeError, ValueError):
        codec = None  # the one or the other, by the release
    return _source(file) if codec is None else pyarrow.input_stream(_source(file), compression=codec)


def _memory_map(real: Callable[..., Any]) -> Any:
    mapped = by_descriptor(real)

    def memory_map(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return (mapped if mode in ("r", "rb") else real)(path, mode, *args, **kwargs)

    return memory_map


ROWS: Dict[str, Rows] = {
    "pyarrow": (("OSFile", _os_file), ("memory_map", of_state(0, "path", _memory_map))),
    "pyarrow.csv": (
        ("read_csv", by_object(0, "input_file", "rb", dress=_arrow_source)),
        ("write_csv", by_object(1, "output_file", "wb", dress=_lend)),
    ),
    "pyarrow.dataset": (("_ensure_multiple_sources", _multiple_sources),),
    "pyarrow.feather": (
        ("write_feather", by_object(1, "dest", "wb", dress=_lend)),
        ("read_table", by_object(0, "source", "rb", dress=_source)),
        ("read_feather", by_object(0, "source", "rb", dress=_source)),
    ),
    "pyarrow.fs": (("_resolve_filesystem_and_path", of_state(0, "path", _resolve_filesystem)),),
    "pyarrow.json": (("read_json", by_object(0, "input_file", "rb", dress=_arrow_source)),),
    "pyarrow.orc": (("write_table", by_object(1, "where", "wb", dress=_lend)),),
    "pyarrow.parquet.core": (
        ("ParquetWriter.__init__", of_state(1, "where", _parquet_init)),
        ("ParquetWriter.close", _parquet_close),
        ("ParquetWriter.__exit__", _parquet_exit),
        ("write_table", by_object(1, "where", "wb", unless=("filesystem",), dress=_lend)),
    ),
}
