"""Uploads of bodies whose length nobody knows yet."""

from __future__ import annotations

import os

from asya_shim import traces
from asya_shim.answers import version_of
from asya_shim.client import JOIN, Broken, WrongPeer
from asya_shim.connection import Connection, flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from asya_shim.connection import Buffer
    from asya_shim.remote import Remote


class Upload:
    """A body on its way, of a length nobody knows yet. Used by one thread; nothing is stored before `finish`.

    What was sent cannot be sent again: a connection that breaks ends it with StateUnavailableError.
    """

    def __init__(self, remote: Remote, key: bytes, head: bytes) -> None:
        self._remote = remote
        self._key = key
        self._owner = os.getpid()
        self._connection: Optional[Connection] = remote._stream(key)
        self._transmit(traces.with_header(head) if traces.met else head)

    def send(self, data: Buffer) -> None:
        """Send the next bytes; waits while the proxy cannot take more.

        Raises what the proxy answered where it refuses the body early.
        """
        data = flat(data)
        if 0 < len(data) <= JOIN:
            self._transmit(b"%x\r\n%b\r\n" % (len(data), bytes(data)))
        elif len(data):
            self._transmit(b"%x\r\n" % len(data))
            self._transmit(data)
            self._transmit(b"\r\n")

    def finish(self) -> str:
        """Send the end and wait until it is stored; the new version."""
        self._transmit(b"0\r\n\r\n")
        connection, self._connection = self._connection, None
        assert connection is not None
        try:
            response = self._remote.client.receive(connection)
        except (Broken, WrongPeer) as error:
            lost = isinstance(error, Broken)
            raise self._broken(error, "unknown_outcome" if lost else "unavailable") from None
        if response.status // 100 == 2:
            return version_of(response)
        raise self._remote._error(response, self._key)[1]

    def abort(self) -> None:
        """Drop it; the proxy stores nothing. Does nothing after `finish`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _transmit(self, data: Buffer) -> None:
        connection = self._connection
        if connection is None:
            raise ValueError("the upload has ended")
        if os.getpid() != self._owner:
            self.abort()
            raise self._remote.failure("unavailable", "an upload cannot go on in a forked process", self._key)
        try:
            connection.send_all(data)
        except OSError as error:
            self._connection = None
            try:
                response = self._remote.client.refusal(connection, error)
            except (Broken, WrongPeer) as broken:
                raise self._broken(broken, "unavailable") from None
            raise self._remote._error(response, self._key)[1] from None
        except BaseException:
            self.abort()
            raise

    def _broken(self, error: Exception, code: str) -> OSError:
        text = f"the state proxy at {self._remote.client.path} cut an upload that cannot be repeated ({error})"
        return self._remote.failure(code, text, self._key)
