"""h5py: a `File` of a state path stands on an open file, written out when its turn ends and dropped with it."""

from __future__ import annotations

import functools
from _weakref import ref

from asya_shim.adapters.by_path import drop, of_state
from asya_shim.handles import is_failure
from asya_shim.layers import below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Tuple

    from asya_shim.adapters.by_path import Rows
    from asya_shim.scopes import Scope


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
            drop(file)
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
                drop(file)
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
                drop(file)

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


ROWS: Dict[str, Rows] = {
    "h5py._hl.base": (("is_hdf5", of_state(0, "fname", _is_hdf5)),),
    "h5py._hl.files": (
        ("File.__init__", of_state(1, "name", _h5_init)),
        ("File.close", _h5_close),
        ("File.__exit__", _h5_exit),
    ),
}
