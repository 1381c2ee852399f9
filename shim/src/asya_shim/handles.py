"""One open file without buffers: a position on a node, what it may do, and what its end stores or drops.

What a file description is to a kernel, as an `io` object. The buffers and the text above it are `layers`.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from _operator import attrgetter
from _weakref import ref

from asya_shim import original, scopes
from asya_shim.content import MemFd
from asya_shim.errors import StateConflictError
from asya_shim.nodes import Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from types import TracebackType
    from typing import Any, Callable, ClassVar, Dict, Optional, Type, TypeVar

    from _typeshed import ReadableBuffer, WriteableBuffer

    _T = TypeVar("_T")

RAW_MODES = {
    (letter, plus): {"r": "rb", "w": "rb" if plus else "wb", "x": "xb", "a": "ab"}[letter] + ("+" if plus else "")
    for letter in "rwxa"
    for plus in (False, True)
}
"""`FileIO.mode` by letter and plus."""


class RawFile(io.RawIOBase):
    """One handle on a node. Its position is its own, until a descriptor is asked for: then it is the kernel's."""

    all_writers: ClassVar[Dict[int, weakref.ref[RawFile]]] = {}
    """Every open handle of the process that can write, oldest first."""

    # Below an `io` class plain attributes lie in a dictionary made for each object; slots save half a microsecond.
    __slots__ = (
        "_appends",
        "_closed",
        "_fd",
        "_outer",
        "_position",
        "_reads",
        "_writes",
        "mode",
        "name",
        "node",
        "scope",
    )

    closed = property(attrgetter("_closed"))
    """The property of `io` looks into a dictionary, and one in Python costs several times this one."""

    # What most handles never change.
    shared_descriptors = 0
    """Duplicates of its descriptor that are open."""
    _abandoned = False
    _narrowed = False
    """Its descriptor writes, but this is a view of it for reading."""
    _created: Optional[str] = None
    _shy = False
    _warned = False
    _failed: Optional[OSError] = None
    """What the last write met, so that bytes are missing here which the program believes written."""

    def __init__(
        self,
        node: Node,
        name: Any,
        mode: str,
        reads: bool,
        writes: bool,
        appends: bool = False,
        creates: bool = False,
    ) -> None:
        self._closed = False
        self.node = node
        scope = self.scope = node.scope
        self.name: Any = name
        self.mode = mode
        self._reads = reads
        self._writes = writes
        self._appends = appends
        self._position = 0
        self._fd = -1
        identity = id(self)
        reference = scope.files[identity] = ref(self)
        self._outer = reference if writes else None
        node.attach(identity, writes)
        if writes:
            RawFile.all_writers[identity] = reference
            if creates:
                self._created = node.version
            if appends:
                self._position = len(node)

    # What it can do

    # The checks of what each `open`, `read` and `close` goes through stand in line: calls add up
    # in a process that waits between its calls.

    def readable(self) -> bool:
        if self._closed or self.scope.cancelled:
            self._check()
        return self._reads

    def writable(self) -> bool:
        if self._closed or self.scope.cancelled:
            self._check()
        return self._writes

    def seekable(self) -> bool:
        self._check()
        return True

    def isatty(self) -> bool:
        self._check()
        return False

    @property
    def closefd(self) -> bool:
        return True

    @property
    def appends(self) -> bool:
        """Whether it writes at the end only."""
        return self._appends

    @property
    def writes(self) -> bool:
        """Whether it was opened for writing; also of a closed one."""
        return self._writes or self._narrowed

    def __repr__(self) -> str:
        state = "[closed]" if self._closed else f"name={self.name!r} mode={self.mode!r} closefd=True"
        return f"<asya_shim.handles.RawFile {state}>"

    def _check(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed file")
        if self.scope.cancelled:
            raise OSError(errno.ECANCELED, "the turn that opened this file was cancelled", self.node.place.shown)

    # Bytes

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._check()
        if not self._reads:
            raise io.UnsupportedOperation("File not open for reading")
        if self._fd >= 0:
            return original.readv(self._fd, [buffer])
        view = memoryview(buffer).cast("B")
        start = self._position
        data = self.node.read(start, start + len(view))
        size = len(data)
        view[:size] = data
        self._position = start + size
        return size

    def read(self, size: Optional[int] = -1) -> bytes:
        self._check()
        if not self._reads:
            raise io.UnsupportedOperation("File not open for reading")
        if size is None or size < 0:
            return self.readall()
        if self._fd >= 0:
            return bytes(original.read(self._fd, size))
        data = self.node.read(self._position, self._position + size)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        if self._closed or self.scope.cancelled:
            self._check()
        if not self._reads:
            raise io.UnsupportedOperation("File not open for reading")
        if self._fd >= 0:
            original.read(self._fd, 0)  # the kernel knows whether it may be read
            start = self.tell()
            data = self.node.read(start, sys.maxsize)
            self.seek(start + len(data))
            return data
        start = self._position
        content = self.node.content
        data = content if type(content) is bytes and not start else self.node.read(start, sys.maxsize)
        self._position = start + len(data)
        return data

    def write(self, data: ReadableBuffer) -> int:
        if self._closed or self.scope.cancelled:
            self._check()
        if not self._writes:
            raise io.UnsupportedOperation("File not open for writing")
        # A buffer above hands down a flat view of bytes.
        if type(data) is memoryview and data.ndim == 1 and data.format == "B" and data.c_contiguous:
            view = data
        else:
            view = _flat(data)
        node = self.node
        if self._abandoned:
            return len(view)
        if node.disowned:
            from asya_shim.forks import drop_write

            return drop_write(self, len(view))
        if self._fd >= 0:
            node.refuse_dead()
            return int(original.write(self._fd, view))
        if self._appends:
            self._position = node.append(view)
            if scopes.writer() is None:
                from asya_shim.endings import append_soon

                append_soon(node)
        else:
            try:
                node.write(self._position, view, not self._reads)
            except OSError as error:
                self._failed = error
                raise
            self._position += len(view)
            if self._failed is not None:
                self._failed = None
        return len(view)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._check()
        if self._fd >= 0:
            return int(original.lseek(self._fd, offset, whence))
        if whence == 1:
            offset += self._position
        elif whence == 2:
            offset += len(self.node)
        elif whence != 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = offset
        return offset

    def tell(self) -> int:
        if self._closed or self.scope.cancelled:
            self._check()
        return self._position if self._fd < 0 else int(original.lseek(self._fd, 0, 1))

    def truncate(self, size: Optional[int] = None) -> int:
        self._check()
        if not self._writes:
            raise io.UnsupportedOperation("File not open for writing")
        if size is None:
            size = self.tell()
        if size < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if id(self) not in self.node.writers:
            original.ftruncate(self._fd, size)  # which the kernel refuses
        elif not self._abandoned and not self.node.disowned:
            self.node.truncate(size)
            self._failed = None
        return size

    def flush(self) -> None:
        if self._closed:
            self._check()

    # Descriptors

    def fileno(self) -> int:
        """A real descriptor, made when it is first asked for."""
        self._check()
        if self._shy:
            raise io.UnsupportedOperation("fileno")
        if self._fd < 0:
            from asya_shim.descriptors import expose

            self._fd = expose(self, self._position)
        return self._fd

    @property
    def descriptor(self) -> int:
        """The descriptor if one was asked for, else -1."""
        return self._fd

    def without_descriptor(self, make: Callable[..., _T], *args: Any) -> _T:
        """`make(*args)`, with `fileno` refused: up to Python 3.10 a text layer asks, to know of a terminal."""
        self._shy = True
        try:
            return make(*args)
        finally:
            self._shy = False

    def open_descriptor(self) -> int:
        """A new descriptor of this file's content, with an offset of its own at 0."""
        content = self.node.materialise(self._reads or not self._appends, self._writes)
        flags = os.O_RDWR if self._reads and self._writes else os.O_WRONLY if self._writes else os.O_RDONLY
        fd = content.open(flags | (os.O_APPEND if self._appends else 0))
        if self._writes:
            self.node.expose(self._appends)
        return fd

    # The end

    def store(self) -> None:
        """Store what was written so far; the handle stays open (`fsync`)."""
        self._check()
        if self.writes and not self._abandoned:
            self.node.commit()

    def abandon(self) -> None:
        """Store nothing of what this handle wrote and did not store yet; an `x` handle takes its file away again."""
        if self._abandoned or self._closed or not self.writes:
            return
        self._abandoned = True
        node = self.node
        if node.writers - {id(self)}:
            return
        node.abandon()
        created = self._created
        if created is not None and node.version == created and not node.unlinked and not node.disowned:
            try:
                node.place.remote.delete(node.place.key, if_version=created)
                self.scope.ledger.wrote(node.place.id, None)
            except (FileNotFoundError, StateConflictError):
                # Somebody else's by now.
                self.scope.ledger.lost(node.place.id)

    def append_only(self) -> None:
        """Write at the end only, as O_APPEND besides other flags has it."""
        self._appends = True

    def view(self, name: Any, letter: str, plus: bool) -> None:
        """Be what `os.fdopen(fd, mode)` makes of its descriptor: `mode` says what may be tried, the kernel refuses."""
        self.name = name
        writes = plus or letter != "r"
        self._narrowed = self.writes and not writes
        self._reads = plus or letter == "r"
        self._writes = writes
        self.mode = RAW_MODES[letter, plus]
        if letter == "a":
            original.lseek(self._fd, 0, 2)

    def keep_when_abandoned(self) -> None:
        """An abandoned `os.open(O_EXCL)` leaves its empty file, as a disk does."""
        self._created = None

    def beside(self, fd: int) -> RawFile:
        """Another handle on the same node, whose descriptor is `fd`."""
        made = RawFile(self.node, self.name, self.mode, self._reads, self.writes, appends=self._appends)
        made._fd = fd
        return made

    def move_descriptor(self, fd: int) -> None:
        """`fd` is the descriptor from now on; the old one was closed."""
        self._fd = fd

    def warn_dropped(self) -> bool:
        """True the first time."""
        first, self._warned = not self._warned, True
        return first

    def set_outer(self, outer: Any) -> None:
        """The object the user holds, whose buffers have to be flushed before storing; not of one that only reads."""
        if self._outer is not None:
            self._outer = ref(outer)

    @property
    def outer(self) -> Any:
        """The object the user holds where it writes, or None once it was collected."""
        return None if self._outer is None else self._outer()

    def close(self) -> None:
        if self._closed:
            return
        node = self.node
        if not self._writes and self._fd < 0:
            self._closed = True
            identity = id(self)
            node.detach(identity)
            self.scope.files.pop(identity, None)
            return
        try:
            if (self._writes or self._narrowed) and not self._abandoned and not node.disowned:
                if self.scope.cancelled:
                    raise OSError(errno.ECANCELED, "the turn that opened this file was cancelled", node.place.shown)
                if self._failed is not None:
                    self._refuse_incomplete(self._failed)
                if self._fd >= 0:
                    content = node.content
                    if isinstance(content, MemFd) and node.writers == {id(self)}:
                        content.seal(node.place.shown)
                node.commit()
        except Exception as error:
            if not getattr(self, "_finalizing", False):
                raise
            # `io` closes what is collected, and drops what that raises.
            from asya_shim.endings import lose

            lose(self.scope, error)
        finally:
            self._closed = True
            identity = id(self)
            node.detach(identity)
            self.scope.files.pop(identity, None)
            RawFile.all_writers.pop(identity, None)
            if self._fd >= 0:
                from asya_shim.descriptors import withdraw

                fd, self._fd = self._fd, -1
                withdraw(fd)

    def _refuse_incomplete(self, failed: OSError) -> None:
        # A buffer above writes its rest in `close()`, and closes this whether that worked or not.
        self.abandon()
        raise type(failed)(failed.errno, f"{failed.strerror}; nothing of the file is stored", self.node.place.shown)

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        leave(self, self, error)


def _flat(data: ReadableBuffer) -> memoryview:
    """The bytes of `data` in one dimension; BufferError where they do not lie in a row, as of `FileIO`."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("memoryview: underlying buffer is not C-contiguous")
    # Of several dimensions with a zero among them: `cast` refuses that.
    return view.cast("B") if view.nbytes else memoryview(b"")


def leave(outer: Any, raw: RawFile, error: Optional[BaseException]) -> None:
    """Close `outer` at the end of its `with` block, storing nothing if the block raised. Exit with 0 stores."""
    if error is not None and is_failure(error):
        try:
            raw.abandon()
        finally:
            outer.close()
        return
    outer.close()


def is_failure(error: BaseException) -> bool:
    """Whether a block that ends with `error` has failed."""
    return not (isinstance(error, SystemExit) and error.code in (None, 0))
