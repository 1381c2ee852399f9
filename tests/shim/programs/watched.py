"""Runs a program, and tells of every change that it makes on a disk outside one directory.

    watched.py REPORT DIRECTORY PROGRAM ARGUMENTS...

The interpreter's audit events name whatever Python code opens for writing, makes, moves or removes. They do not see
what the shim does below a mount, since that touches no disk. The report is a JSON list of events.
"""

import json
import os
import posix
import runpy
import sys

_CHANGES = {
    # Audit event: which of its arguments are paths, and which the descriptors of their directories.
    "os.mkdir": ((0, 2),),
    "os.rmdir": ((0, 1),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
    "os.truncate": ((0, None),),
    "os.setxattr": ((0, None),),
    "os.removexattr": ((0, None),),
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_readlink = posix.readlink
_getcwd = posix.getcwd
_stat = posix.stat
events = []
armed = True


def _resolve(path, directory):
    if isinstance(path, int):
        path = _readlink(f"/proc/self/fd/{path}")
    path = os.fsdecode(path)
    if not path.startswith("/"):
        base = _readlink(f"/proc/self/fd/{directory}") if directory is not None and directory >= 0 else _getcwd()
        path = base + "/" + path
    if path.startswith("/proc/self/fd/"):
        path = _readlink(path)
    return os.path.normpath(path)


def watch(allowed):
    def note(event, path, directory=None):
        full = _resolve(path, directory)
        if not (full + "/").startswith(allowed + "/") and full != os.devnull and not full.startswith("/memfd:"):
            events.append([event, full])

    def hook(event, arguments):
        if not armed:
            return
        if event == "open":
            path, _, flags = arguments
            if flags & _WRITES and path is not None and not isinstance(path, int):
                note(event, path)
        elif event in _CHANGES:
            for at, directory in _CHANGES[event]:
                note(event, arguments[at], None if directory is None else arguments[directory])

    sys.addaudithook(hook)


if __name__ == "__main__":
    report, allowed = sys.argv[1:3]
    sys.argv = sys.argv[3:]
    watch(allowed)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        armed = False
        fd = posix.open(report, os.O_WRONLY | os.O_CREAT)
        posix.write(fd, json.dumps(events).encode())
        posix.close(fd)
