"""What a forked child must not do: store its parent's files.

A child inherits open files with whatever is buffered in them. The parent stores those; in the child
they are disowned, but for appends, which the child may go on making on its own behalf.
"""

from __future__ import annotations

import os
from _thread import RLock

from asya_shim import endings, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asya_shim.handles import RawFile

_installed = False
active = False


def install() -> None:
    """Disown inherited files in every child from now on."""
    global _installed, active
    active = True
    if not _installed:
        _installed = True
        os.register_at_fork(after_in_child=_in_child)


def uninstall() -> None:
    """The inverse of `install` (the interpreter cannot forget a fork handler)."""
    global active
    active = False


def _in_child() -> None:
    if not active or not paths.mounts:
        return
    from asya_shim.handles import RawFile

    endings.forget_parent()
    for reference in list(RawFile.all_writers.values()):
        file = reference()
        if file is None or file.closed:
            continue
        node = file.node
        node.lock = RLock()
        if file.appends and not node.rewritten and node.content is None:
            node.tail = b""
            node.missing = False
        else:
            node.disowned = True


def drop_write(file: RawFile, size: int) -> int:
    """A child wrote to a file that its parent opened: not stored, and said so once per file."""
    if file.warn_dropped():
        import logging

        endings.failures["forked"] += 1
        logging.getLogger("asya.shim").warning(
            "a forked child wrote to %r, which its parent opened: not stored; open it in the child", file.name
        )
    return size
