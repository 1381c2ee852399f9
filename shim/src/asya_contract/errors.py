"""Error codes of the wire, the status each travels with, and the errno a handler sees.

The code decides, not the status. One table; proxy and shim both read it, the docs are generated
from it.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Tuple


class WireError:
    """One row: `code` in the JSON body, HTTP `status`, `errno` and exception name in the handler."""

    __slots__ = ("code", "errno", "meaning", "raises", "status")

    def __init__(self, code: str, status: int, errno: int, raises: str, meaning: str) -> None:
        self.code = code
        self.status = status
        self.errno = errno
        self.raises = raises
        self.meaning = meaning


_ROWS: Tuple[WireError, ...] = (
    WireError("bad_request", 400, errno.EINVAL, "OSError", "the request cannot be understood"),
    WireError("permission_denied", 403, errno.EACCES, "PermissionError", "the backend refuses the credentials"),
    WireError("read_only", 403, errno.EROFS, "OSError", "the mount is read-only"),
    WireError("key_not_found", 404, errno.ENOENT, "FileNotFoundError", "the file is not there"),
    WireError("is_directory", 409, errno.EISDIR, "IsADirectoryError", "the name is a directory"),
    WireError("not_directory", 409, errno.ENOTDIR, "NotADirectoryError", "a parent of the name is a file"),
    WireError("not_empty", 409, errno.ENOTEMPTY, "OSError", "the directory is not empty"),
    WireError("exists", 412, errno.EEXIST, "FileExistsError", "create-only, and the name is taken"),
    WireError("conflict", 412, errno.ESTALE, "StateConflictError", "the file is no longer at the expected version"),
    WireError("too_large", 413, errno.EFBIG, "OSError", "larger than the backend or the mount allows"),
    WireError("name_too_long", 414, errno.ENAMETOOLONG, "OSError", "more than 900 encoded bytes"),
    WireError("range", 416, errno.EIO, "OSError", "the range lies outside the file"),
    WireError("precondition_required", 428, errno.EIO, "OSError", "CAS needs a precondition for this change"),
    WireError("busy", 429, errno.EAGAIN, "BlockingIOError", "too many requests at once, or the backend's rate limit"),
    WireError("unsupported", 501, errno.ENOTSUP, "OSError", "this backend cannot do that atomically"),
    WireError("unavailable", 503, errno.EIO, "StateUnavailableError", "the backend could not be asked"),
    WireError("unknown_outcome", 503, errno.EIO, "StateUnavailableError", "the change may or may not have landed"),
    WireError("timeout", 504, errno.EIO, "StateUnavailableError", "the backend did not answer within the deadline"),
    WireError("quota", 507, errno.ENOSPC, "OSError", "the backend is full"),
)

WIRE_ERRORS: Dict[str, WireError] = {row.code: row for row in _ROWS}
