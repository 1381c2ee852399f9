"""Everything that can go wrong between the socket and the bucket.

    StoreError
    ├── BadRequest            ├── PermissionDenied      ├── ReadOnly
    ├── KeyNotFound           ├── IsDirectory           ├── NotDirectory      ├── NotEmpty
    ├── Exists                ├── Conflict              ├── PreconditionRequired
    ├── TooLarge              ├── NameTooLong           ├── RangeInvalid
    ├── Busy                  ├── Unsupported           ├── Quota
    └── Unavailable ── Timeout, UnknownOutcome

Each class is one row of `asya_contract.errors`. A store raises these and nothing else: what it
cannot map is `Unavailable`, never `KeyNotFound`.
"""

from asya_contract.errors import WIRE_ERRORS, WireError


class StoreError(Exception):
    """`retryable` tells the client whether the same request, with the same write id, can succeed later."""

    code = "unavailable"
    retryable = False

    @property
    def wire(self) -> WireError:
        return WIRE_ERRORS[self.code]


class BadRequest(StoreError):
    code = "bad_request"


class PermissionDenied(StoreError):
    code = "permission_denied"


class ReadOnly(StoreError):
    code = "read_only"


class KeyNotFound(StoreError):
    code = "key_not_found"


class IsDirectory(StoreError):
    code = "is_directory"


class NotDirectory(StoreError):
    code = "not_directory"


class NotEmpty(StoreError):
    code = "not_empty"


class Exists(StoreError):
    code = "exists"


class Conflict(StoreError):
    code = "conflict"


class PreconditionRequired(StoreError):
    code = "precondition_required"


class TooLarge(StoreError):
    code = "too_large"


class NameTooLong(StoreError):
    code = "name_too_long"


class RangeInvalid(StoreError):
    code = "range"


class Busy(StoreError):
    code = "busy"
    retryable = True


class Unsupported(StoreError):
    code = "unsupported"


class Quota(StoreError):
    code = "quota"


class Unavailable(StoreError):
    """The store could not be asked.

    `ambiguous`: a change was sent and its answer lost, so it may have landed. False only where the
    store certainly did not act (connection refused, a refusal before the body was sent).
    """

    code = "unavailable"
    retryable = True

    def __init__(self, message: str, *, ambiguous: bool = True) -> None:
        super().__init__(message)
        self.ambiguous = ambiguous


class Timeout(Unavailable):
    code = "timeout"


class UnknownOutcome(Unavailable):
    """The answer was lost and looking it up did not settle it."""

    code = "unknown_outcome"
    retryable = False
