"""Large files on their way while they are still being written.

From AHEAD_FROM bytes on, what is written sequentially is sent at once, so that `close()` has little
left to do. Nothing is stored before `finish`. The local copy stays until the file outgrows what this
process may hold (`nodes.max_file_size`); up to there a seek back merely gives the stream up.
"""

from __future__ import annotations

from asya_shim import changes
from asya_shim.paths import Place
from asya_shim.scopes import Scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asya_shim.remote import Upload

AHEAD_FROM = 16 * 2**20
"""Bytes from which on a sequential write is sent ahead."""
_PIECE = 256 * 1024


class Streamed:
    """Content that has left this process: only its size is known."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


class Ahead:
    """An upload that runs ahead of `close()`. `sent` bytes are with the proxy or in the next piece."""

    def __init__(self, scope: Scope, place: Place) -> None:
        self._scope = scope
        self._place = place
        self._when = changes.condition(scope, place)
        self._piece = bytearray()
        self.sent = 0
        version, absent = self._when
        self._upload: Upload = changes.attempt(
            scope, place, self._when, place.remote.upload, place.key, if_version=version, if_absent=absent
        )

    def catch_up(self, content: bytearray) -> None:
        """Send what `content` has beyond `sent`, as far as it fills pieces."""
        while len(content) - self.sent >= _PIECE:
            self._send(bytes(content[self.sent : self.sent + _PIECE]))
            self.sent += _PIECE

    def send(self, data: memoryview) -> None:
        """Send `data` behind all that was sent before; small writes are joined."""
        self._piece += data
        self.sent += len(data)
        if len(self._piece) >= _PIECE:
            self._send(bytes(self._piece))
            self._piece.clear()

    def finish(self) -> str:
        """Send the rest and wait until it is stored; the new version."""
        if self._piece:
            self._send(bytes(self._piece))
            self._piece.clear()
        version: str = changes.attempt(self._scope, self._place, self._when, self._upload.finish)
        changes.note_written(self._scope, self._place, version)
        return version

    def abort(self) -> None:
        """Store nothing."""
        self._upload.abort()

    def _send(self, data: bytes) -> None:
        changes.attempt(self._scope, self._place, self._when, self._upload.send, data)
