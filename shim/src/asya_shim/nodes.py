"""A state file that is open in a scope: its bytes, what of them is not stored yet, and how they get stored.

What an inode is to a kernel: handles of one scope on one name share a node, so that they see each
other's flushed writes. A node knows three kinds of unsent change: it was rewritten (one PUT of the
whole), bytes were added at its end (one PATCH of the tail), or it has to come into being.
"""

from __future__ import annotations

import errno
import time
from _thread import RLock

from asya_shim import changes, lookups, original, tokens
from asya_shim.content import MemFd, Ranges, piece
from asya_shim.errors import StateConflictError, StateUnavailableError, wire_code
from asya_shim.paths import Place
from asya_shim.scopes import Scope, current_turn, writer
from asya_shim.streaming import AHEAD_FROM, Ahead, Streamed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import AbstractSet, Optional, Union

    from asya_shim.content import Content

max_file_size = 64 * 2**20
"""Bytes of one file held in this process (ASYA_STATE_MAX_FILE_SIZE)."""


class Node:
    """One file in one scope. `content` None: what is stored was not fetched, and `tail` is what was added.

    All methods may be called from any thread.
    """

    # What most nodes never change.
    version: Optional[str] = None
    """What is stored; None: nothing, or nobody has looked."""
    mtime_ns = 0
    stored_size = 0
    tail: Union[bytes, bytearray] = b""
    """Added to a file whose stored content was not fetched."""
    tail_at: Optional[int] = None
    """Where in `content` begins what was added."""
    hollow = False
    """`content` is a memfd whose first `stored_size` bytes were not fetched."""
    rewritten = False
    missing = False
    """To be created, though nothing may be written."""
    unlinked = False
    disowned = False
    """The parent process's."""
    dead: Optional[OSError] = None
    exposed = False
    """A descriptor that writes is out."""
    handles = -1
    """How many are open; -1 of one that was made just now, so that nobody else knows it."""
    writers: AbstractSet[int] = frozenset()
    """The handles that can write, by identity."""
    _digest = b""
    _ahead: Optional[Ahead] = None
    _never_ahead = False

    def __init__(self, scope: Scope, place: Place, content: Optional[Content]) -> None:
        self.scope = scope
        self.place = place
        self.content: Union[Content, Streamed, None] = content
        self.lock = RLock()
        if not content:
            self.mtime_ns = time.time_ns()

    @property
    def pending(self) -> bool:
        """Whether calls of the same scope have to look here and not into the store."""
        return bool(self.rewritten or self.missing or self.tail or self.tail_at is not None or self.exposed)

    def attach(self, file: int, writes: bool) -> None:
        """`file`, by identity, is a handle of this node from now on."""
        if self.handles < 0:
            self.handles = 1
            if writes:
                self.writers = {file}
            nodes = self.scope.nodes
            if not self.unlinked and (not nodes or self._is_first(writes)):
                nodes[self.place.id] = self
            return
        with self.lock:
            self.handles += 1
            if writes:
                self.writers = self.writers | {file} if self.writers else {file}
            if not self.unlinked and self._is_first(writes):
                self.scope.nodes[self.place.id] = self

    def _is_first(self, writes: bool) -> bool:
        """Whether it is to be the one that later calls find."""
        known = self.scope.nodes.get(self.place.id)
        return writes or known is None or not known.writers

    def detach(self, file: int) -> None:
        """`file` is closed."""
        with self.lock:
            self.handles -= 1
            if self.writers:
                self.writers = self.writers - {file}
                if not self.writers and self.exposed:
                    self.exposed = False
            if not self.handles:
                nodes = self.scope.nodes
                if nodes.get(self.place.id) is self:
                    del nodes[self.place.id]

    def forget(self) -> None:
        """Take the node off its name: later opens look into the store."""
        if self.scope.nodes.get(self.place.id) is self:
            del self.scope.nodes[self.place.id]

    def unlink(self) -> None:
        """The name is gone; handles go on reading and writing what nobody will see."""
        with self.lock:
            self.forget()
            self.unlinked = True

    def move(self, place: Place) -> None:
        """The file has another name now."""
        with self.lock:
            self.forget()
            self.place = place
            self.version = None
            token = self.scope.ledger.token(place.id)
            if token is not None:
                self.version = token.version
            if self.handles:
                self.scope.nodes[place.id] = self

    # Bytes

    def __len__(self) -> int:
        with self.lock:
            if self.content is None:
                return self.stored_size + len(self.tail)
            return len(self.content)

    def read(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, fewer at the end of the file."""
        content = self.content
        if type(content) is bytes:
            return content if start == 0 and end >= len(content) else content[start:end]
        with self.lock:
            return piece(self._whole(), start, end)

    def _whole(self) -> Content:
        """The content, fetched if only its end is here."""
        if isinstance(self.content, Streamed):
            raise OSError(errno.EFBIG, self._too_large("cannot be read while it is written"), self.place.shown)
        if self.content is not None and not self.hollow:
            return self.content
        stored: Content = b""
        if self.stored_size:
            found = lookups.read(self.scope, self.place)
            stored = held(self.place, found.data, found.version, found.size)
            if self.version not in (None, found.version):
                self.stored_size = found.size
            self.version = found.version
        if self.hollow:
            assert isinstance(self.content, MemFd)
            self.content.write(0, memoryview(piece(stored, 0, self.stored_size)))
            self.hollow = False
            return self.content
        if self.tail:
            stored = bytearray(piece(stored, 0, len(stored)))
            self.tail_at = len(stored)
            stored += self.tail
            self.tail = b""
        self.content = stored
        return stored

    def _mutable(self) -> Union[bytearray, MemFd]:
        content = self._whole()
        if isinstance(content, Ranges):
            self._check_size(len(content))
            content = self.content = bytearray(content.read(0, len(content)))
        if isinstance(content, bytes):
            content = self.content = bytearray(content)
        elif isinstance(content, MemFd) and content.sealed:
            content = self.content = bytearray(content.read(0, len(content)))
        return content

    def write(self, start: int, data: memoryview, sequential: bool = False) -> int:
        """Write all of `data` at `start`; a gap before it reads as zeros.

        `sequential`: a handle that cannot read, so what it writes may leave this process ahead.
        """
        with self.lock:
            if self.dead is not None:
                self.refuse_dead()
            size = len(data)
            end = start + size
            if self._ahead is not None or (sequential and end > AHEAD_FROM):
                written = self._write_ahead(start, data, sequential)
                if written:
                    return written
            if end > max_file_size:
                self._check_size(end)
            content = self.content
            if type(content) is bytearray and len(content) == start:
                content += data
            else:
                self._write_at(start, data)
            self.rewritten = True
            if self.tail_at is not None:
                self.tail_at = None
            self.mtime_ns = time.time_ns()
            if tokens.begun:
                self._touch()
            return size

    def _write_at(self, start: int, data: memoryview) -> None:
        content = self._mutable()
        if isinstance(content, MemFd):
            content.write(start, data)
            return
        if start > len(content):
            content.extend(bytes(start - len(content)))
        content[start : start + len(data)] = data

    def _write_ahead(self, start: int, data: memoryview, sequential: bool) -> int:
        """Write by the stream; 0 where the file has to go as one after all."""
        content = self.content
        if isinstance(content, Streamed):
            if start != len(content):
                raise OSError(errno.ESPIPE, self._too_large("can only be written on at its end"), self.place.shown)
            assert self._ahead is not None
            self._ahead.send(data)
            content.size += len(data)
            self._changed()
            return len(data)
        if not isinstance(content, bytearray) or start != len(content) or not sequential or len(self.writers) > 1:
            self.go_as_one()
            return 0
        if self._never_ahead:
            return 0
        try:
            if self._ahead is None:
                self._ahead = Ahead(self.scope, self.place)
            self._ahead.catch_up(content)
            if start + len(data) <= max_file_size:
                return 0
            self._ahead.send(memoryview(content)[self._ahead.sent :])
            self._ahead.send(data)
        except StateUnavailableError:
            # The copy is whole, so nothing is lost: it is sent again at the end, and that tells.
            self.go_as_one()
            if start + len(data) > max_file_size:
                raise
            return 0
        self.content = Streamed(start + len(data))
        self._changed()
        return len(data)

    def go_as_one(self) -> None:
        """Give up a stream that runs ahead; the whole file is sent when it is stored."""
        self._never_ahead = True
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.abort()

    def _too_large(self, text: str) -> str:
        return f"a file of more than ASYA_STATE_MAX_FILE_SIZE={max_file_size} bytes {text}"

    def append(self, data: memoryview) -> int:
        """Add `data` at the end; the new size."""
        with self.lock:
            self.refuse_dead()
            if self.content is None:
                self._check_size(len(self.tail) + len(data))
                if not isinstance(self.tail, bytearray):
                    self.tail = bytearray(self.tail)
                self.tail += data
                self._touch()
                return self.stored_size + len(self.tail)
            size = len(self.content)
            if not self.rewritten and self.tail_at is None:
                self.tail_at = size
            self._check_size(size + len(data))
            content = self.content if self.hollow and isinstance(self.content, MemFd) else self._mutable()
            if isinstance(content, MemFd):
                content.write(size, data)
            else:
                assert isinstance(content, bytearray)
                content += data
            self._touch()
            return size + len(data)

    def truncate(self, size: int) -> None:
        """Cut or extend with zeros."""
        with self.lock:
            self.refuse_dead()
            if isinstance(self.content, Streamed):
                if size == len(self.content):
                    return
                raise OSError(errno.ESPIPE, self._too_large("cannot be cut while it is written"), self.place.shown)
            if self._ahead is not None:
                self.go_as_one()
            self._check_size(size)
            if size == 0 and not isinstance(self.content, MemFd):
                self.content = bytearray()
                self.tail = b""
            else:
                content = self._mutable()
                if isinstance(content, MemFd):
                    original.ftruncate(content.fd, size)
                elif size <= len(content):
                    del content[size:]
                else:
                    content.extend(bytes(size - len(content)))
            self._changed()

    def _changed(self) -> None:
        self.rewritten = True
        if self.tail_at is not None:
            self.tail_at = None
        self._touch()

    def _touch(self) -> None:
        self.mtime_ns = time.time_ns()
        if not tokens.begun or current_turn.get() is self.scope:
            return
        turn = writer()
        if turn is not None and turn is not self.scope:
            turn.touched.add(self)

    def _check_size(self, size: int) -> None:
        if size > max_file_size:
            raise OSError(
                errno.EFBIG, f"{size} bytes are more than ASYA_STATE_MAX_FILE_SIZE={max_file_size}", self.place.shown
            )

    # Descriptors

    def materialise(self, reads: bool, writes: bool) -> MemFd:
        """The content as a memfd, for a descriptor that reads or writes."""
        with self.lock:
            if self._ahead is not None:
                self.go_as_one()
            if self.content is None and reads:
                self._whole()
            content = self.content
            if isinstance(content, Streamed):
                raise OSError(errno.EFBIG, self._too_large("has no descriptor"), self.place.shown)
            if isinstance(content, Ranges):
                self._check_size(len(content))
            if content is None:
                content = MemFd(self.tail, self.stored_size)
                self.hollow = self.stored_size > 0
                self.tail_at = self.stored_size
                self.tail = b""
            elif isinstance(content, Ranges):
                content = MemFd(content.read(0, len(content)))
            elif not isinstance(content, MemFd):
                content = MemFd(content)
            elif writes and content.sealed:
                content = MemFd(content.read(0, len(content)))
            elif reads:
                self._whole()
            self.content = content
            return content

    def expose(self, appends: bool) -> None:
        """A descriptor that can write is out: from now on only the bytes themselves tell whether they changed."""
        with self.lock:
            self.exposed = True
            if self.rewritten:
                return
            if appends and self.tail_at is None:
                self.tail_at = len(self)
            self._digest = b"" if self.hollow else self._fingerprint()

    def _fingerprint(self) -> bytes:
        from hashlib import blake2b

        content = self.content
        assert isinstance(content, MemFd)
        end = len(content) if self.tail_at is None else self.tail_at
        total = blake2b(str(end).encode())
        for start in range(0, end, 2**20):
            total.update(content.read(start, min(start + 2**20, end)))
        return total.digest()

    def _notice(self) -> None:
        """See what descriptors have done."""
        content = self.content
        if self.rewritten or not isinstance(content, MemFd):
            return
        if self.hollow:
            # Only O_APPEND descriptors are out, and the kernel lets those write at the end only.
            return
        if (self.tail_at is not None and len(content) < self.tail_at) or self._digest != self._fingerprint():
            self._changed()

    # Storing

    def refuse_dead(self) -> None:
        """Raise again what ended this node."""
        if self.dead is not None:
            raise type(self.dead)(self.dead.errno, f"{self.dead.strerror}; reopen the file", self.place.shown)

    def commit(self) -> None:
        """Store what is not stored yet. The node stays usable.

        Raises what `changes.write` and `changes.append` raise; after a conflict the node is dead.
        """
        with self.lock:
            if self.unlinked or self.disowned:
                return
            if self.dead is not None:
                self.refuse_dead()
            if self.exposed:
                self._notice()
            try:
                if self.rewritten:
                    self._put()
                elif self.tail or self.missing or self.tail_at is not None:
                    self._patch()
            except StateConflictError as error:
                self.dead = error
                self.forget()
                raise
            if self.exposed and not self.hollow:
                self._digest = self._fingerprint()

    def _put(self) -> None:
        content = self.content
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            if isinstance(content, bytearray):
                ahead.send(memoryview(content)[ahead.sent :])
            self.version = ahead.finish()
            self._stored(len(self))
            self._never_ahead = True
            return
        if isinstance(content, MemFd):
            data: Union[bytes, bytearray] = content.read(0, len(content))
        else:
            assert isinstance(content, (bytes, bytearray)), content
            data = content
        when = changes.condition(self.scope, self.place)
        self.version = changes.write(self.scope, self.place, data, when)
        self._stored(len(data))

    def _patch(self) -> None:
        content = self.content
        if content is None:
            tail = bytes(self.tail)
        else:
            assert not isinstance(content, Streamed)
            at = len(content) if self.tail_at is None else self.tail_at
            tail = piece(content, at, len(content))
        if not tail and not self.missing:
            if not self.exposed:
                self.tail_at = None
            return
        try:
            version, base = changes.append(self.scope, self.place, tail)
        except StateUnavailableError as error:
            if wire_code(error) == "unknown_outcome":
                # It may be there: sending it again could store it twice.
                self._stored(self.stored_size)
            raise
        alone = base == self.version
        self.version = version
        self._stored(len(self) if content is not None else self.stored_size + len(tail))
        if isinstance(content, MemFd):
            self.tail_at = len(content) if self.exposed else None
        elif not alone and content is not None:
            # Others have appended in between; what is here is not what is there.
            self.content = None

    def _stored(self, size: int) -> None:
        self.stored_size = size
        self.rewritten = False
        # Seldom set: no need to give each node an attribute of its own.
        if self.tail:
            self.tail = b""
        if self.tail_at is not None:
            self.tail_at = None
        if self.missing:
            self.missing = False

    def abandon(self) -> None:
        """Drop what is not stored, if nobody else is writing."""
        with self.lock:
            self.go_as_one()
            self.rewritten = self.missing = self.exposed = False
            self.tail = b""
            self.tail_at = None
            self.forget()


def held(place: Place, data: bytes, version: str, size: int) -> Content:
    """What was fetched of a file as content: all of it, or ranges where there is more."""
    return data if len(data) == size else Ranges(place, version, size, data)
