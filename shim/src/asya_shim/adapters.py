"""Adapters for libraries that open paths in C, C++ or Rust: of a state path they get an open file, as they may.

Imported when one of `late.ADAPTED` is, and never before. An adapter changes nothing for other paths,
and returns what the library would return of a file on a disk; what cannot be had so is left to the
guard at the mount path, or refused where the library would not tell (`refusing`).
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from _weakref import ref

from asya_shim.files import below, is_failure
from asya_shim.paths import Place, locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Sequence, Tuple

    from asya_shim.scopes import Scope

    Make = Callable[[Any], Any]


def place_of(path: Any) -> Optional[Place]:
    """The place of a path below a mount; None for everything else that a library takes in a path's stead, such as a
    URL, which would be a path below the working directory."""
    if isinstance(path, str):
        return None if "://" in path else locate(path)
    return locate(path) if isinstance(path, os.PathLike) else None


def of_state(position: int, name: str, make: Make) -> Make:
    """A function that is what `make` makes of it for a state path in the argument at `position`, called `name`.

    For other paths it gets its arguments untouched: those of later releases of its library are not known here.
    """

    def make_both(real: Callable[..., Any]) -> Any:
        adapted = make(real)

        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            path = args[position] if len(args) > position else kwargs.get(name)
            return (real if place_of(path) is None else adapted)(*args, **kwargs)

        return call

    return make_both


def by_object(
    position: int,
    name: str,
    mode: str,
    *,
    library: str = "",
    unless: Sequence[str] = (),
    dress: Any = None,
    called: Any = os.fspath,
) -> Make:
    """A function that is done with its file when it returns: it gets the open file in place of the path.

    `position` and `name` are the argument's. With one of the arguments `unless` it is refused, for they mean
    something of paths. `dress(file, path)` is what is passed on, where it is not the file;
    `called(path)` is what the library would open, None where it does so by Python.
    """

    def make(real: Callable[..., Any]) -> Any:
        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            path: Any = args[position] if len(args) > position else kwargs.get(name)
            if place_of(path) is None:
                return real(*args, **kwargs)
            if any(kwargs.get(other) for other in unless):
                raise _refused(path, library)
            path = called(path)
            if path is None:
                return real(*args, **kwargs)
            with open(path, mode) as file:
                passed = file if dress is None else dress(file, path)
                if len(args) > position:
                    args = (*args[:position], passed, *args[position + 1 :])
                else:
                    kwargs[name] = passed
                return real(*args, **kwargs)

        return call

    return make


def _refused(path: Any, library: str) -> OSError:
    from asya_shim import leaks

    return leaks.refused(path, library, f"{library} cannot open a state file by path here")


_PATHS = ("filename", "path", "source")
"""What the functions that are refused call it."""


def refusing(library: str, position: int = 0) -> Make:
    """A function that, of a path that it cannot open, would say nothing but "nothing there"."""

    def make(real: Callable[..., Any]) -> Any:
        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            for value in (*args[position : position + 1], *(kwargs[name] for name in _PATHS if name in kwargs)):
                if place_of(value) is not None:
                    raise _refused(value, library)
            return real(*args, **kwargs)

        return call

    return make


class StandIn:
    """Called in place of a class that cannot be subclassed, and like that class otherwise. `module` has it."""

    def __init__(self, module: str, real: Any, call: Callable[..., Any]) -> None:
        self.real = real
        self._call = call
        self.__doc__ = real.__doc__
        self.__module__ = module

    def __reduce__(self) -> str:
        name: str = self.real.__name__
        return name

    def __or__(self, other: Any) -> Any:
        return self.real | other

    def __ror__(self, other: Any) -> Any:
        return other | self.real

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self.real)

    def __subclasscheck__(self, kind: type) -> bool:
        return issubclass(kind, self.real)

    def __mro_entries__(self, bases: Any) -> Tuple[Any, ...]:
        return (self.real,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


# OpenCV


def _imread(real: Callable[..., Any]) -> Any:
    def imread(filename: Any, *args: Any, **kwargs: Any) -> Any:
        import cv2
        import numpy

        try:
            with open(filename, "rb") as file:
                data = file.read()
        except (FileNotFoundError, IsADirectoryError):
            return None
        # imread(filename[, flags]) and imread(filename[, dst[, flags]])
        flags, dst = kwargs.get("flags", cv2.IMREAD_COLOR), kwargs.get("dst")
        for value in args:
            if isinstance(value, int):
                flags = value
            else:
                dst = value
        if not data:
            return None
        image = cv2.imdecode(numpy.frombuffer(data, numpy.uint8), flags)
        if image is not None and dst is not None and dst.shape == image.shape and dst.dtype == image.dtype:
            dst[...] = image
            return dst
        return image

    return imread


def _imwrite(real: Callable[..., Any]) -> Any:
    def imwrite(filename: Any, img: Any, *args: Any, **kwargs: Any) -> Any:
        import cv2

        done, data = cv2.imencode(os.path.splitext(os.fspath(filename))[1], img, *args, **kwargs)
        if done:
            with open(filename, "wb") as file:
                file.write(data.tobytes())
        return done

    return imwrite


# HDF5

_H5_MODES = {"r": "rb", "r+": "r+b", "w": "w+b", "w-": "x+b", "x": "x+b"}


def _h5_open(name: Any, mode: str) -> Tuple[Any, str]:
    """An open file, and the mode for h5py, which need not create what is created already."""
    if mode == "a":
        try:
            return open(name, "r+b"), "r+"
        except FileNotFoundError:
            mode = "x"
    if mode not in _H5_MODES:
        raise ValueError("Invalid mode; must be one of r, r+, w, w-, x, a")
    return open(name, _H5_MODES[mode]), "w" if mode in ("w-", "x") else mode


def _drop(file: Any) -> None:
    """Close an open file and store nothing of it."""
    raw = below(file)
    if raw is not None:
        raw.abandon()
    file.close()


def _truncate_to_change(file: Any) -> None:
    """HDF5 cuts a file to the size that it has whenever it flushes; that is no change, which would be stored."""
    known = ref(file)

    def truncate(size: Optional[int] = None) -> int:
        found: Any = known()
        position = found.tell()
        end = found.seek(0, 2)
        found.seek(position)
        return int(end if size == end else type(found).truncate(found, size))

    file.truncate = truncate


_h5_written: Dict[int, ref[Any]] = {}
"""The `h5py.File`s that can write, by id. What the library holds back of them is theirs too."""


def _keep(file: Any) -> None:
    from asya_shim import endings

    key = id(file)
    _h5_written[key] = ref(file, lambda _: _h5_written.pop(key, None))
    if _write_out not in endings.before_commit:
        endings.before_commit.append(_write_out)
        endings.before_discard.append(_close_dropped)


def _close_dropped(scope: Scope) -> None:
    """Close what a discarded turn has open, storing nothing: it would write to closed files when it is collected."""
    for file in [reference() for reference in list(_h5_written.values())]:
        raw = None if file is None else below(file.__dict__.get("_asya_file"))
        if file is not None and raw is not None and raw.scope is scope and not scope.cancelled:
            raw.abandon()
            file.close()


def _write_out() -> None:
    """Let HDF5 write what the ending turn has open; at the interpreter's end, all of this process."""
    from asya_shim import endings, scopes

    turn = scopes.writer()
    for file in [reference() for reference in list(_h5_written.values())]:
        if file is None:
            continue
        raw = below(file.__dict__.get("_asya_file"))
        if raw is None or raw.closed or raw.node.disowned or raw.scope.cancelled:
            continue
        if endings.is_exiting():
            file.close()
        elif raw.scope is turn or not raw.scope.is_turn or raw.scope.ended:
            file.flush()


def _h5_init(real: Callable[..., Any]) -> Any:
    def __init__(self: Any, name: Any, mode: str = "r", driver: Any = None, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if driver not in (None, "sec2"):
            real(self, name, mode, driver, *args, **kwargs)
            return
        file, mode = _h5_open(name, mode)
        if mode != "r":
            _truncate_to_change(file)
        try:
            real(self, name, mode, "fileobj", *args, fileobj=file, **kwargs)
        except BaseException:
            _drop(file)
            raise
        self._asya_file = file
        if mode != "r":
            _keep(self)

    return __init__


def _h5_close(real: Callable[..., Any]) -> Any:
    @functools.wraps(real)
    def close(self: Any, *args: Any, **kwargs: Any) -> Any:
        file = self.__dict__.pop("_asya_file", None)
        try:
            done = real(self, *args, **kwargs)
        except BaseException:
            if file is not None:
                _drop(file)
            raise
        if file is not None:
            file.close()
        return done

    return close


def _h5_exit(real: Callable[..., Any]) -> Any:
    @functools.wraps(real)
    def __exit__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        error = args[1] if len(args) > 1 else None
        file = self.__dict__.pop("_asya_file", None) if error is not None and is_failure(error) else None
        try:
            return real(self, *args, **kwargs)
        finally:
            if file is not None:
                _drop(file)

    return __exit__


def _is_hdf5(real: Callable[..., Any]) -> Any:
    def is_hdf5(fname: Any) -> bool:
        try:
            file = open(fname, "rb")  # noqa: SIM115
        except (FileNotFoundError, IsADirectoryError):
            return False
        import h5py

        with file:
            try:
                h5py.File(file, "r").close()
            except OSError:
                return False
        return True

    return is_hdf5


# Arrow


def _resolve_filesystem(real: Callable[..., Any]) -> Any:
    def resolve(path: Any, filesystem: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not _is_local(filesystem):
            return real(path, filesystem, *args, **kwargs)
        from asya_shim.arrow import filesystem as state

        return state(), os.fspath(path)

    return resolve


def _multiple_sources(real: Callable[..., Any]) -> Any:
    @functools.wraps(real)
    def ensure(*args: Any, **kwargs: Any) -> Any:
        paths = args[0] if args else kwargs.get("paths")
        filesystem = args[1] if len(args) > 1 else kwargs.get("filesystem")
        if not _is_local(filesystem) or not paths or any(place_of(path) is None for path in paths):
            return real(*args, **kwargs)
        from asya_shim.arrow import filesystem as state

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
        from asya_shim.arrow import StateFile

        return StateFile.over(open(path, mode.replace("b", "") + "b"))

    def call(path: Any, *args: Any, **kwargs: Any) -> Any:
        return (real if place_of(path) is None else open_file)(path, *args, **kwargs)

    return StandIn("pyarrow", real, call)


def _parquet_init(real: Callable[..., Any]) -> Any:
    def __init__(self: Any, where: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if len(args) > 1 or kwargs.get("filesystem") is not None:
            real(self, where, *args, **kwargs)
            return
        file = open(where, "wb")  # noqa: SIM115
        try:
            real(self, file, *args, **kwargs)
        except BaseException:
            _drop(file)
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
        _drop(file)


def _arrow_source(file: Any, path: str) -> Any:
    """As Arrow opens a path to read a text from: decompressed, by the name's ending."""
    import pyarrow

    try:
        codec = pyarrow.Codec.detect(path).name
    except (TypeError, ValueError):
        codec = None  # the one or the other, by the release
    return file if codec is None else pyarrow.input_stream(file, compression=codec)


def _by_descriptor(real: Callable[..., Any]) -> Callable[..., Any]:
    """For what maps a file that it reads: the memory that the content lies in has a path as long as it is open."""

    def call(path: Any, *args: Any, **kwargs: Any) -> Any:
        if place_of(path) is None:
            return real(path, *args, **kwargs)
        with open(path, "rb") as file:
            return real(f"/proc/self/fd/{file.fileno()}", *args, **kwargs)

    return call


def _memory_map(real: Callable[..., Any]) -> Any:
    mapped = _by_descriptor(real)

    def memory_map(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return (mapped if mode in ("r", "rb") else real)(path, mode, *args, **kwargs)

    return memory_map


# safetensors


def _serialize_file(real: Callable[..., Any]) -> Any:
    def serialize_file(tensor_dict: Any, filename: Any, *args: Any, **kwargs: Any) -> None:
        from safetensors import serialize

        data = serialize(tensor_dict, *args, **kwargs)
        with open(filename, "wb") as file:
            file.write(data)

    return serialize_file


def _safe_open(real: Any) -> Any:
    return StandIn("safetensors._safetensors_rust", real, _by_descriptor(real))


# scipy and zarr


def _uncompressed(path: Any) -> Optional[str]:
    name = os.fspath(path)
    return None if name.endswith((".gz", ".bz2")) else name


def _matrix_market(path: Any) -> str:
    name: str = os.fspath(path)
    return name if name.endswith(".mtx") else name + ".mtx"


def _zarr_move(real: Callable[..., Any]) -> Any:
    """It makes a link, so as not to replace a file. Here a file whose absence was observed is written on that
    condition with `consistency: cas`, and in the last place with `lww`, as any other."""

    def _safe_move(src: Any, dst: Any) -> None:
        if os.path.exists(dst):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(dst))
        os.replace(src, dst)

    return _safe_move


_POLARS_PATHS = ("hive_partitioning", "hive_schema", "include_file_paths", "partition_by")


def _polars(position: int, name: str, mode: str) -> Make:
    return by_object(position, name, mode, library="polars", unless=_POLARS_PATHS)


# Of a long path its errors name the end only.
_polars_scan = refusing("polars")
_polars_sink = refusing("polars", 1)
_cv2_refusing = refusing("cv2")

ROWS: Dict[str, Tuple[Tuple[str, Make], ...]] = {
    "cv2": (
        ("imread", of_state(0, "filename", _imread)),
        ("imwrite", of_state(0, "filename", _imwrite)),
        *(
            (name, _cv2_refusing)
            for name in (
                "haveImageReader",
                "imcount",
                "imreadWithMetadata",
                "imreadanimation",
                "imreadmulti",
                "imwriteWithMetadata",
                "imwriteanimation",
                "imwritemulti",
                "readOpticalFlow",
                "writeOpticalFlow",
            )
        ),
        *(
            (f"{kind}.{name}", refusing("cv2", 1))
            for kind in ("FileStorage", "VideoCapture", "VideoWriter")
            for name in ("__init__", "open")
        ),
    ),
    "h5py._hl.base": (("is_hdf5", of_state(0, "fname", _is_hdf5)),),
    "h5py._hl.files": (
        ("File.__init__", of_state(1, "name", _h5_init)),
        ("File.close", _h5_close),
        ("File.__exit__", _h5_exit),
    ),
    "polars.dataframe.frame": tuple(
        (f"DataFrame.write_{kind}", _polars(1, "file", "wb"))
        for kind in ("avro", "csv", "ipc", "ipc_stream", "json", "ndjson", "parquet")
    ),
    "polars.io.avro": (("read_avro", _polars(0, "source", "rb")),),
    "polars.io.csv.functions": (("read_csv", _polars(0, "source", "rb")), ("scan_csv", _polars_scan)),
    "polars.io.ipc.functions": (
        *((f"read_{kind}", _polars(0, "source", "rb")) for kind in ("ipc", "ipc_schema", "ipc_stream")),
        ("scan_ipc", _polars_scan),
    ),
    "polars.io.json.read": (("read_json", _polars(0, "source", "rb")),),
    "polars.io.lines": (("read_lines", _polars(0, "source", "rb")), ("scan_lines", _polars_scan)),
    "polars.io.ndjson": (("read_ndjson", _polars(0, "source", "rb")), ("scan_ndjson", _polars_scan)),
    "polars.io.parquet.functions": (
        *((f"read_{kind}", _polars(0, "source", "rb")) for kind in ("parquet", "parquet_metadata", "parquet_schema")),
        ("scan_parquet", _polars_scan),
    ),
    "polars.lazyframe.frame": tuple(
        (f"LazyFrame.sink_{kind}", _polars_sink) for kind in ("csv", "ipc", "ndjson", "parquet")
    ),
    "pyarrow": (("OSFile", _os_file), ("memory_map", of_state(0, "path", _memory_map))),
    "pyarrow.csv": (
        ("read_csv", by_object(0, "input_file", "rb", dress=_arrow_source)),
        ("write_csv", by_object(1, "output_file", "wb")),
    ),
    "pyarrow.dataset": (("_ensure_multiple_sources", _multiple_sources),),
    "pyarrow.feather": (
        ("write_feather", by_object(1, "dest", "wb")),
        ("read_table", by_object(0, "source", "rb")),
        ("read_feather", by_object(0, "source", "rb")),
    ),
    "pyarrow.fs": (("_resolve_filesystem_and_path", of_state(0, "path", _resolve_filesystem)),),
    "pyarrow.json": (("read_json", by_object(0, "input_file", "rb", dress=_arrow_source)),),
    "pyarrow.orc": (("write_table", by_object(1, "where", "wb")),),
    "pyarrow.parquet.core": (
        ("ParquetWriter.__init__", of_state(1, "where", _parquet_init)),
        ("ParquetWriter.close", _parquet_close),
        ("ParquetWriter.__exit__", _parquet_exit),
        ("write_table", by_object(1, "where", "wb", unless=("filesystem",))),
    ),
    "safetensors._safetensors_rust": (
        ("serialize_file", of_state(1, "filename", _serialize_file)),
        ("safe_open", _safe_open),
    ),
    "scipy.io._fast_matrix_market": (
        ("mmread", by_object(0, "source", "rb", called=_uncompressed)),
        ("mminfo", by_object(0, "source", "rb", called=_uncompressed)),
        ("mmwrite", by_object(0, "target", "wb", called=_matrix_market)),
    ),
    "zarr.storage._local": (("_safe_move", of_state(1, "dst", _zarr_move)),),
}
"""Module -> (attribute, what makes its replacement out of the original)."""
