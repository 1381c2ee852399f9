"""Bytes of one file in this process: in memory, in a memfd once somebody wants a descriptor, or by ranges.

`bytes` as they came from the proxy are kept until the first change makes a `bytearray` of them; the
functions of this room take whichever it is. A memfd costs ten microseconds and is made on demand.
"""

from __future__ import annotations

import errno
import fcntl
import os

from asya_shim import original
from asya_shim.errors import StateUnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Union

    from asya_shim.paths import Place

    Content = Union[bytes, bytearray, "MemFd", "Ranges"]

WINDOW = 4 * 2**20
"""Bytes fetched at once from a file too large to be held."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class MemFd:
    """Content in an anonymous file of the kernel, so that real descriptors can be handed out."""

    def __init__(self, data: Union[bytes, bytearray], size: Optional[int] = None) -> None:
        self.fd = original.memfd_create("asya-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.sealed = False
        if size is not None:
            original.ftruncate(self.fd, size)
        view = memoryview(data)
        start = 0
        while start < len(view):
            start += original.pwrite(self.fd, view[start:], start + (size or 0))

    def __del__(self) -> None:
        original.close(self.fd)

    def __len__(self) -> int:
        return original.fstat(self.fd).st_size

    def open(self, flags: int) -> int:
        """A descriptor of its own offset. Without /proc (never in a pod) one that shares its offset."""
        try:
            return original.open_fd(f"/proc/self/fd/{self.fd}", flags | os.O_CLOEXEC)
        except FileNotFoundError:
            return original.dup(self.fd)

    def read(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, fewer where the file ends before."""
        pieces = []
        end = min(end, len(self))
        while start < end:
            piece = original.pread(self.fd, min(end - start, 2**30), start)
            if not piece:
                break
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    def write(self, start: int, data: memoryview) -> None:
        """Write all of `data` at `start`."""
        done = 0
        while done < len(data):
            done += original.pwrite(self.fd, data[done:], start + done)

    def seal(self, shown: Any) -> None:
        """Let nobody change it any more. Raises OSError(EBUSY), about `shown`, while a writable mapping lives."""
        try:
            original.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
        except OSError as error:
            if error.errno == errno.EBUSY:
                error.strerror = "a writable mapping of it (mmap, numpy.memmap) still lives: close or delete it first"
                error.filename = shown
            raise
        self.sealed = True


class Ranges:
    """Content that is fetched as it is read, all of one version.

    Raises StateConflictError (ESTALE) from `read` where the file was replaced meanwhile.
    """

    def __init__(self, place: Place, version: str, size: int, first: bytes) -> None:
        self._place = place
        self._version = version
        self._size = size
        self._start = 0
        self._window = first

    def __len__(self) -> int:
        return self._size

    def read(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`; at most one request if they lie within WINDOW."""
        end = min(end, self._size)
        if start >= end:
            return b""
        if not (self._start <= start and end <= self._start + len(self._window)):
            self._window = self._fetch(start, min(self._size, max(end, start + WINDOW)))
            self._start = start
        return self._window[start - self._start : end - self._start]

    def _fetch(self, start: int, end: int) -> bytes:
        """A read that cannot be answered marks the file for whoever reads, one that is answered lifts the mark."""
        from asya_shim import lookups, scopes

        name = self._place.id
        try:
            data = lookups.read_range(self._place, start, end, self._version)
        except StateUnavailableError:
            scopes.current().ledger.failed(name)
            raise
        ledger = scopes.current().ledger
        if name in ledger.marked:
            ledger.saw(name, self._version)
        return data


def piece(content: Content, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of any kind of content."""
    if isinstance(content, (MemFd, Ranges)):
        return content.read(start, end)
    return bytes(content[start:end])
