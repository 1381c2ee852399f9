"""The functions of the interpreter as they were before any hook: what the shim itself calls.

Taken from the C modules at import, so that a second activation, another patcher or a rebound name
never sends the shim through its own hooks.
"""

from __future__ import annotations

import _io
import builtins
import fcntl as _fcntl
import io
import os
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

FileIO = _io.FileIO
open_file: Callable[..., Any] = builtins.open
open_code: Callable[..., Any] = io.open_code

open_fd = posix.open
close = posix.close
dup = posix.dup
fcntl = _fcntl.fcntl
fdatasync = posix.fdatasync
fstat = posix.fstat
fsync = posix.fsync
ftruncate = posix.ftruncate
getcwd = posix.getcwd
lseek = posix.lseek
memfd_create = os.memfd_create
pread = posix.pread
pwrite = posix.pwrite
read = posix.read
readv = posix.readv
write = posix.write
