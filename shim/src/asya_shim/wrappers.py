"""Rows for what stands on files or runs work: compressors, archives, databases, locks, `FileIO`, threads, executors."""

from __future__ import annotations

import errno
import io
from _weakref import ref

from asya_shim import scopes
from asya_shim.handles import RawFile, is_failure
from asya_shim.layers import TextIOWrapper, below
from asya_shim.opening import open_state, parse_mode
from asya_shim.paths import locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    import weakref
    from typing import Any, Callable, Dict, List, Tuple

    Make = Callable[[Any], Any]


# Wrappers around a file: leaving their block by an exception stores nothing


def abandoning_exit(leave: Callable[..., Any]) -> Any:
    """`__exit__` of a compressor or archive that abandons the state file below it when the block raised."""

    def __exit__(self: Any, kind: Any, error: Any, trace: Any) -> Any:  # noqa: N807
        if error is not None and is_failure(error):
            raw = below(self)
            if raw is not None:
                raw.abandon()
        return leave(self, kind, error, trace)

    return __exit__


def compressed_open(real: Callable[..., Any]) -> Any:
    """`gzip.open` and its like: a text layer of ours, which knows how its block ended, on a state file."""

    def open(filename: Any, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:  # noqa: A001
        if "t" not in mode or args or isinstance(filename, io.IOBase) or locate(filename) is None:
            return real(filename, mode, *args, **kwargs)
        layer = {name: kwargs.pop(name, None) for name in ("encoding", "errors", "newline")}
        binary = real(filename, mode.replace("t", ""), **kwargs)
        text = TextIOWrapper(binary, **layer)
        text.mode = mode
        return text

    return open


# Databases: the pure one, since the others open paths in C


_databases: Dict[int, weakref.ref[Any]] = {}


def steered_dbm_open(real: Callable[..., Any]) -> Any:
    """`dbm.open`: on a state path always `dbm.dumb`, which goes through `open`."""

    def open(file: Any, flag: str = "r", mode: int = 0o666) -> Any:  # noqa: A001
        if locate(file) is None:
            return real(file, flag, mode)
        import dbm.dumb

        database = dbm.dumb.open(file, flag, mode)  # noqa: SIM115
        _keep(database)
        return database

    return open


def kept_shelf(real: Callable[..., Any]) -> Any:
    """`shelve.open`: a shelf on a state path writes its cache out at the end of each turn."""

    def open(filename: Any, flag: str = "c", protocol: Any = None, writeback: bool = False) -> Any:  # noqa: A001
        shelf = real(filename, flag, protocol, writeback)
        if writeback and locate(filename) is not None:
            _keep(shelf)
        return shelf

    return open


def _keep(database: Any) -> None:
    from asya_shim import endings

    key = id(database)
    _databases[key] = ref(database, lambda _: _databases.pop(key, None))
    if _write_out not in endings.before_commit:
        endings.before_commit.append(_write_out)


def _write_out() -> None:
    """Indexes and caches that databases hold in memory."""
    alive = [database for database in (reference() for reference in list(_databases.values())) if database is not None]
    for database in alive:
        if getattr(database, "cache", None):
            database.sync()
    for database in alive:
        if getattr(database, "_modified", False):
            database.sync()


# Locks


def refused_lock(real: Callable[..., Any]) -> Any:
    """`flock` and `lockf`: a lock of this kernel would be none between pods."""

    def lock(fd: Any, *args: Any) -> Any:
        from asya_shim import descriptors

        number = fd if isinstance(fd, int) else fd.fileno()
        file = descriptors.open_files.get(number)
        if file is not None:
            raise OSError(
                errno.ENOSYS,
                "a state file cannot be locked; create a lock file with open(path, 'x'), which only one can",
                file.node.place.shown,
            )
        return real(fd, *args)

    return lock


# FileIO

_stand_ins: Dict[Any, Any] = {}
"""The classes that stand in for others of `io`, and those others."""


def hooked_file_io(real: Any) -> Any:
    """`io.FileIO`: a state path opens a raw state file, and those count as instances."""

    class Kind(type(real)):  # type: ignore[misc]
        """Of the class that stands in for `io.FileIO`."""

        def __call__(cls, file: Any, mode: str = "r", closefd: bool = True, opener: Any = None) -> Any:
            if cls is not FileIO:
                return super().__call__(file, mode, closefd, opener)
            place = None if isinstance(file, int) else locate(file)
            if place is None:
                return real(file, mode, closefd, opener)
            parsed = parse_mode(mode)
            if parsed is None or not closefd or opener is not None:
                return real(file, mode, closefd, opener)
            return open_state(place, parsed[0] + ("+" if parsed[1] else "") + "b", 0)

        def __instancecheck__(cls, instance: Any) -> bool:
            if cls is FileIO:
                return isinstance(instance, (real, RawFile))
            return bool(super().__instancecheck__(instance))

        def __subclasscheck__(cls, kind: Any) -> bool:
            if cls is FileIO:
                return issubclass(kind, (real, RawFile))
            return bool(super().__subclasscheck__(kind))

    class FileIO(real, metaclass=Kind):  # type: ignore[misc]
        """`io.FileIO`."""

    _stand_ins[FileIO] = real
    FileIO.__module__ = real.__module__
    FileIO.__qualname__ = real.__qualname__
    FileIO.__doc__ = real.__doc__
    return FileIO


# Buffers and text layers put on a state file by hand


def abandoning_layer(real: Any) -> Any:
    """`io.TextIOWrapper` and its like: leaving the block of one on a state file by an exception stores nothing.

    Others are what they always were: instances of the interpreter's own class.
    """

    class Kind(type(io.IOBase)):  # type: ignore[misc]
        """Of the class that stands in; every kind of that of `io.IOBase`, so that classes can have both as bases."""

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            if cls is not Layer:
                return super().__call__(*args, **kwargs)
            under = args[0] if args else kwargs.get("buffer", kwargs.get("raw"))
            return (real if below(under) is None else Abandoning)(*args, **kwargs)

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, real) if cls is Layer else bool(super().__instancecheck__(instance))

        def __subclasscheck__(cls, kind: Any) -> bool:
            return issubclass(kind, real) if cls is Layer else bool(super().__subclasscheck__(kind))

    class Abandoning(real):  # type: ignore[misc]
        """What stands on a state file."""

        __exit__ = abandoning_exit(real.__exit__)

    class Layer(real, metaclass=Kind):  # type: ignore[misc]
        """The class that stands in."""

        __exit__ = abandoning_exit(real.__exit__)

    _stand_ins[Layer] = real
    for made in (Abandoning, Layer):
        made.__module__, made.__name__, made.__qualname__ = real.__module__, real.__name__, real.__qualname__
        made.__doc__ = real.__doc__
    return Layer


def knowing_stand_ins(real: Callable[..., Any]) -> Any:
    """`functools.singledispatch`: what is registered for a class of `io` is so for the interpreter's own class, whose
    instances other files are. It looks at bases, which no stand-in can be one of (`aiofiles` dispatches so)."""

    def singledispatch(func: Any) -> Any:
        generic = real(func)
        register = generic.register

        def registering(cls: Any, func: Any = None) -> Any:
            if isinstance(cls, type):
                return register(_stand_ins.get(cls, cls), func)
            if func is None and getattr(cls, "__annotations__", None):
                from typing import get_type_hints

                kind = next(iter(get_type_hints(cls).values()))
                if isinstance(kind, type) and kind in _stand_ins:
                    return register(_stand_ins[kind], cls)
            return register(cls, func)

        generic.register = registering
        return generic

    singledispatch.__doc__ = real.__doc__
    return singledispatch


# Work belongs to who submitted it


def carrying_start(real: Callable[[threading.Thread], None]) -> Any:
    """`Thread.start`: the thread runs as work of the turn that starts it."""

    def start(self: threading.Thread) -> None:
        turn = scopes.current_turn.get()
        target = getattr(self, "_target", None)
        if turn is None or getattr(target, "__module__", "") == "concurrent.futures.thread":
            real(self)
            return
        run = scopes.Carried(self.run, turn)

        def run_once() -> None:
            try:
                run()
            finally:
                self.__dict__.pop("run", None)

        self.run = run_once  # type: ignore[method-assign]
        try:
            real(self)
        except BaseException:
            self.__dict__.pop("run", None)
            raise

    return start


def carrying_submit(real: Callable[..., Any]) -> Any:
    """`ThreadPoolExecutor.submit`: the call runs as work of the scope that submits it."""

    def submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if not scopes.is_active():
            return real(self, fn, *args, **kwargs)
        return real(self, scopes.carry(fn), *args, **kwargs)

    return submit


_BLOCKS: Dict[str, str] = {
    "bz2": "BZ2File",
    "gzip": "GzipFile",
    "lzma": "LZMAFile",
    "tarfile": "TarFile",
    "zipfile": "ZipFile",
}
_LAYERS = ("BufferedRandom", "BufferedWriter", "TextIOWrapper")
ROWS: List[Tuple[str, str, Make]] = [
    *((module, f"{kind}.__exit__", abandoning_exit) for module, kind in _BLOCKS.items()),
    *((module, "open", compressed_open) for module in ("bz2", "gzip", "lzma")),
    ("dbm", "open", steered_dbm_open),
    ("shelve", "open", kept_shelf),
    ("fcntl", "flock", refused_lock),
    ("fcntl", "lockf", refused_lock),
    ("os", "lockf", refused_lock),
    ("posix", "lockf", refused_lock),
    ("io", "FileIO", hooked_file_io),
    ("_io", "FileIO", hooked_file_io),
    ("functools", "singledispatch", knowing_stand_ins),
    *((module, kind, abandoning_layer) for kind in _LAYERS for module in ("io", "_io")),
    ("threading", "Thread.start", carrying_start),
    ("concurrent.futures.thread", "ThreadPoolExecutor.submit", carrying_submit),
]
