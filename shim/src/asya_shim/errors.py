"""What the handler sees when a state file cannot be had: real `OSError`s, each with errno and file name.

    OSError
    ├── FileExistsError ── StateConflictError   (ESTALE: somebody else wrote the file)
    └── StateUnavailableError                   (EIO: the state could not be asked; never "not found")

Everything else is the built-in exception that the errno belongs to. The mapping is
`asya_contract.errors.WIRE_ERRORS`; nothing else about it is written down here. All of them pickle,
because they cross process pools.
"""

from __future__ import annotations

import builtins
import errno
import os

from asya_contract.errors import WIRE_ERRORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional, Type, Union

    Filename = Union[str, bytes]


class StateConflictError(FileExistsError):
    """The file is no longer at the version this write relied on. `errno` is `ESTALE`.

    Read the file again and decide anew; until then each further write of it raises again.
    """


class StateUnavailableError(OSError):
    """The state could not be asked, or the outcome of a change is not known. `errno` is `EIO`."""


_OURS: Dict[str, Type[OSError]] = {
    "StateConflictError": StateConflictError,
    "StateUnavailableError": StateUnavailableError,
}


def _exception(name: str) -> Type[OSError]:
    found = _OURS.get(name) or getattr(builtins, name)
    assert isinstance(found, type)
    assert issubclass(found, OSError)
    return found


_TYPES: Dict[str, Type[OSError]] = {code: _exception(row.raises) for code, row in WIRE_ERRORS.items()}


def wire_code(error: BaseException) -> str:
    """The wire code an exception was made from, "" for any other exception."""
    code = getattr(error, "asya_code", "")
    return code if isinstance(code, str) else ""


def from_wire(
    code: str,
    message: str,
    *,
    actor: str = "",
    backend: str = "",
    filename: Optional[Filename] = None,
    filename2: Optional[Filename] = None,
) -> OSError:
    """The exception for a wire error; the caller raises it.

    `strerror` is the proxy's `message`, with actor and backend behind it where it does not name them.
    A code that is not in the table (a newer proxy's) becomes StateUnavailableError and is named, since
    nothing is known of it.
    """
    row = WIRE_ERRORS.get(code)
    number = errno.EIO if row is None else row.errno
    kind: Type[OSError] = StateUnavailableError if row is None else _TYPES[code]
    text = message or (row.meaning if row is not None else os.strerror(number))
    if row is None:
        text = f"unknown error code {code!r}: {text}"
    facts = (("actor", actor), ("backend", backend))
    where = ", ".join(f"{name} {value}" for name, value in facts if value and value not in text)
    if where:
        text = f"{text} ({where})"
    if filename is None:
        error = kind(number, text)
    elif filename2 is None:
        error = kind(number, text, filename)
    else:
        error = kind(number, text, filename, None, filename2)
    error.asya_code = code  # type: ignore[attr-defined]
    return error
