"""One row per wire code: proxy and handler agree on each, and the table is the contract's."""

import builtins
import errno

import pytest

from asya_contract.errors import WIRE_ERRORS
from asya_proxy import errors as proxy_errors

# Written down a second time, from the contract's section 3: a change of the table is a change of the contract.
CONTRACT = {
    "bad_request": (400, "OSError", errno.EINVAL),
    "permission_denied": (403, "PermissionError", errno.EACCES),
    "read_only": (403, "OSError", errno.EROFS),
    "key_not_found": (404, "FileNotFoundError", errno.ENOENT),
    "is_directory": (409, "IsADirectoryError", errno.EISDIR),
    "not_directory": (409, "NotADirectoryError", errno.ENOTDIR),
    "not_empty": (409, "OSError", errno.ENOTEMPTY),
    "exists": (412, "FileExistsError", errno.EEXIST),
    "conflict": (412, "StateConflictError", errno.ESTALE),
    "too_large": (413, "OSError", errno.EFBIG),
    "name_too_long": (414, "OSError", errno.ENAMETOOLONG),
    "range": (416, "OSError", errno.EIO),
    "precondition_required": (428, "OSError", errno.EIO),
    "busy": (429, "BlockingIOError", errno.EAGAIN),
    "unsupported": (501, "OSError", errno.ENOTSUP),
    "unavailable": (503, "StateUnavailableError", errno.EIO),
    "unknown_outcome": (503, "StateUnavailableError", errno.EIO),
    "timeout": (504, "StateUnavailableError", errno.EIO),
    "quota": (507, "OSError", errno.ENOSPC),
}


def subclasses(cls):
    return {cls}.union(*(subclasses(sub) for sub in cls.__subclasses__()))


def test_the_table_is_the_contracts():
    assert {code: (row.status, row.raises, row.errno) for code, row in WIRE_ERRORS.items()} == CONTRACT


def test_each_row_has_a_meaning_and_its_own_code():
    for code, row in WIRE_ERRORS.items():
        assert row.code == code
        assert row.meaning


@pytest.mark.parametrize("row", WIRE_ERRORS.values(), ids=WIRE_ERRORS)
def test_a_builtin_name_is_what_python_makes_of_the_errno(row):
    """`OSError(errno)` picks the subclass itself; the table may not promise another one."""
    if hasattr(builtins, row.raises):
        assert type(OSError(row.errno, row.meaning)).__name__ == row.raises
    else:
        assert row.raises in ("StateConflictError", "StateUnavailableError")


def test_only_an_answer_of_absence_reads_as_absence():
    """An outage is never an answer: nothing but key_not_found may become FileNotFoundError."""
    absent = [code for code, row in WIRE_ERRORS.items() if row.errno == errno.ENOENT or row.status == 404]
    assert absent == ["key_not_found"]


def test_the_proxy_has_one_error_per_row():
    own = [cls for cls in subclasses(proxy_errors.StoreError) if cls.__module__ == proxy_errors.__name__]
    codes = [cls.code for cls in own if cls is not proxy_errors.StoreError]
    # `Unavailable` and the tree's root share a code on purpose: what has no better name is an outage.
    assert sorted(codes) == sorted(WIRE_ERRORS)
    assert proxy_errors.StoreError.code == "unavailable"


def test_an_unknown_outcome_is_not_offered_for_repeating():
    assert proxy_errors.Unavailable("x").retryable
    assert not proxy_errors.UnknownOutcome("x").retryable
    assert not proxy_errors.Conflict("x").retryable
