"""What is said where something opened a state path by itself: one log line with path, library and the way that works.

Nothing of it is needed before that happens; until then it is not imported. It decides nothing: the
guard at the mount path and the leak alarm have refused already.
"""

from __future__ import annotations

import errno
import os
import sys

from asya_shim import original, paths
from asya_shim.paths import locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Dict, Iterator, List, Optional, Sequence

WAY = "open() it and pass the file object, or copy it to a temporary file"
WAYS: Dict[str, str] = {
    "cv2": "read it with open() and use cv2.imdecode, store what cv2.imencode makes, or copy it to a temporary file",
    "polars": "open() it and pass the file object, or use a read_ or write_ function, which take one path",
    "pyarrow": "open() it and pass the file object, or use pyarrow.parquet and pyarrow.dataset, which take the path",
    "sqlite3": "keep the database in memory, load it with Connection.deserialize(open(path, 'rb').read()) and store "
    "Connection.serialize() with open(path, 'wb')",
}
"""By library; `WAY` for all others."""
_PROGRAM_WAY = "hand it the open file as stdin or stdout, or copy it to a temporary file"
_CWD_WAY = "start it in another directory, without cwd="
_OLD_SQLITE = (
    "keep the database in memory, load it with Connection.executescript(open(path).read()) and store "
    "'\\n'.join(Connection.iterdump()) with open(path, 'w'); Python 3.11 has Connection.serialize and deserialize"
)
_PHRASES = ("not a directory", "read-only file system", "unable to open", "parent directory")
"""How libraries word what the kernel answers below the guard."""


def way(library: str) -> str:
    """What works instead, for people."""
    if library == "sqlite3" and not hasattr(sys.modules["sqlite3"].Connection, "serialize"):
        return _OLD_SQLITE
    return WAYS.get(library, WAY)


def refused(path: Any, library: str, text: str) -> OSError:
    """The error for a call that cannot work on a state path, after its log line; the caller raises it."""
    works = way(library)
    _tell(library, os.fsdecode(path), works)
    return OSError(errno.ENOTSUP, f"{text}: {works}", path)


def caller() -> str:
    """The library that called whatever raised the audit event that is being looked at."""
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    return _library_of(frame)


def explain(error: Optional[BaseException]) -> None:
    """Log where `error`, raised by a library or caused by one's error, is the guard's answer to it. Errors of the
    file hooks explain themselves."""
    try:
        _explain(error)
    except Exception:
        return  # somebody's `__str__` fails, or a log handler: neither must keep a turn from being discarded


def _explain(error: Optional[BaseException]) -> None:
    errors = list(_chain(error))
    for one in errors:
        if _is_ours(_innermost(one)):
            return
    for one in errors:
        path = _met(one)
        if path is not None:
            named = type(one).__module__.partition(".")[0]
            library = named if named not in ("builtins", "__main__") else _library_of(_innermost(one))
            _tell(library, path, way(library))
            return


def explain_program(executable: Any, arguments: Sequence[Any], cwd: Any = None) -> None:
    """Log where a child that is no Python, and so has no hooks, is given a state path, and where any is to run in a
    state directory."""
    texts: List[str] = [os.fsdecode(a) for a in (executable, *arguments) if isinstance(a, (str, bytes, os.PathLike))]
    if cwd is not None and locate(cwd) is not None:
        _tell(f"the program {texts[1]}", os.fsdecode(cwd), _CWD_WAY, "and cannot start in")
        return
    for text in texts[1:]:
        path = _mentioned(text)
        if path is not None:
            if not any("python" in known for known in texts) and not _is_python_script(texts[0]):
                _tell(f"the program {texts[1]}", path, _PROGRAM_WAY)
            return


def _mentioned(text: str) -> Optional[str]:
    """The state path, a mount's own among them, that stands in an argument or a shell's command."""
    import re

    for mount in paths.mounts:
        found = re.search(rf"(?<![\w.-]){re.escape(mount.root)}(?![\w.-])", text)
        if found:
            rest = text[found.start() :]
            return mount.under + _rest(rest, mount.under) if rest.startswith(mount.under) else mount.root
    return None


def _is_python_script(path: str) -> bool:
    try:
        fd = original.open_fd(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        head: bytes = original.read(fd, 256)
    finally:
        original.close(fd)
    return head.startswith(b"#!") and b"python" in head


def _tell(library: str, path: Any, works: str, fails: str = "and cannot open") -> None:
    import logging

    logging.getLogger("asya.shim").warning(
        "%s opens files by itself, past the file hooks, %s %s: %s", library, fails, path, works
    )


def _chain(error: Optional[BaseException]) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 16:
        yield error
        seen += 1
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _innermost(error: BaseException) -> Optional[FrameType]:
    trace = error.__traceback__
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame


def _is_ours(frame: Optional[FrameType]) -> bool:
    return frame is not None and str(frame.f_globals.get("__name__")).startswith(("asya_shim", "asya_contract"))


def _library_of(frame: Optional[FrameType]) -> str:
    """The package whose code a frame runs; of code that is no package's, a library that it calls."""
    if frame is None:
        return "a library"
    module = str(frame.f_globals.get("__name__"))
    file = frame.f_code.co_filename
    # Cython's frames have the names of its sources.
    if "site-packages" in file or "dist-packages" in file or file.endswith((".pxi", ".pyx")):
        return module.partition(".")[0]
    return f"a library called by {module} (line {frame.f_lineno})"


def _met(error: BaseException) -> Optional[str]:
    """The state path at which the guard answered, if that is what an error tells of."""
    text = str(error)
    low = text.lower()
    number = getattr(error, "errno", None)
    if number not in (errno.ENOTDIR, errno.EROFS) and not any(phrase in low for phrase in _PHRASES):
        return None
    name = getattr(error, "filename", None)
    if isinstance(name, (str, bytes)) and locate(name) is not None:
        return os.fsdecode(name)
    for mount in paths.mounts:
        if mount.under in text:
            return mount.under + _rest(text, mount.under)
    return None


def _rest(text: str, under: str) -> str:
    """What of a path follows `under` in a sentence."""
    rest = text.partition(under)[2]
    for end in "'\"`\n\t ,;)":
        rest = rest.partition(end)[0]
    return rest
