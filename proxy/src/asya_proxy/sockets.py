"""Listening sockets: Unix sockets that survive crashes and are never stolen, and the port of health and metrics.

A lock file beside the socket tells a living owner from a stale file, so that two proxies that start together
cannot both win. The socket appears under its name in one step, with its mode.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from typing import Any

MODE = 0o666
"""Usable by any uid: the handler's image chooses its own."""


class SocketTaken(Exception):
    """Somebody serves there already, or something else has the name; the message says what to do."""


class AddressRefused(Exception):
    """Nobody can listen at this host and port; the message says why and what to do."""


class MountSocket:
    """One mount's listening socket; the lock is held as long as this lives."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = _lock(path)
        try:
            _check_stale(path)
            self.socket = _bind(path)
            self._inode = os.stat(path).st_ino
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Stop listening and take the name away, unless another one has it by now."""
        self.socket.close()
        try:
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except FileNotFoundError:
            pass
        os.close(self._lock)


def listen_on(address: tuple[str, int]) -> socket.socket:
    """A TCP socket that listens at (host, port), on every address of both families where the host is empty.

    Raises AddressRefused.
    """
    host, port = address
    try:
        family, place = _resolved(host, port)
        return socket.create_server(place, family=family, dualstack_ipv6=not host and family == socket.AF_INET6)
    except OSError as error:
        raise AddressRefused(_refusal(error, port)) from error
    except UnicodeError as error:  # of the codec for international names
        raise AddressRefused(f"no name of a host; {_other_host(port)}") from error


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    if not host:
        return (socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET), ("", port)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # Of a name that has both, IPv4: whoever asks for `localhost` may know no other.
    family, *_, place = min(found, key=lambda one: one[0] != socket.AF_INET)
    return family, place


def _refusal(error: OSError, port: int) -> str:
    if isinstance(error, socket.gaierror):  # its numbers are not those of errno
        return f"{error.strerror}; {_other_host(port)}"
    cause = os.strerror(error.errno) if error.errno else str(error)
    by_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
    return f"{cause}; {'give it another port' if by_port else _other_host(port)}"


def _other_host(port: int) -> str:
    return f"give it another host, or none (:{port})"


def _lock(path: str) -> int:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SocketTaken(_taken(path)) from None
    return lock


def _taken(path: str) -> str:
    return f"a proxy already serves {path}; stop it, or give this one another STATE_SOCKET"


def _check_stale(path: str) -> None:
    """Raise SocketTaken unless `path` is free or a socket that nobody listens on."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketTaken(f"{path} is there and is no socket; remove it, or give another STATE_SOCKET")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return
            raise SocketTaken(f"{path} is there and cannot be tried ({error.strerror}); remove it") from error
    raise SocketTaken(_taken(path))


def _bind(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    first = path + "~"
    try:
        try:
            os.unlink(first)
        except FileNotFoundError:
            pass
        listening.bind(first)
        os.chmod(first, MODE)
        listening.listen(1024)
        os.rename(first, path)
    except BaseException:
        listening.close()
        raise
    return listening
