"""What the real servers of the tests cannot pass, and what they do instead: the one list of it.

A waived case is a skip that says why, so that each run prints it (`-ra`). For S3 the strict fake runs all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

_UNCONDITIONAL_DELETE = "DELETE ignores If-Match"

WAIVERS: Mapping[str, Mapping[str, str]] = {
    "versitygw": {
        "test_a_put_and_a_delete_do_not_both_win": "DELETE looks and removes without a lock: both win 1-2 % of rounds",
    },
    "ceph": {
        "test_a_put_and_a_delete_do_not_both_win": "DELETE looks and removes in two steps: both win 9 % of rounds",
    },
    "minio": {
        "test_conditional_delete": _UNCONDITIONAL_DELETE,
        "test_a_put_and_a_delete_do_not_both_win": _UNCONDITIONAL_DELETE,
    },
}


def waive(request: pytest.FixtureRequest, server: str) -> None:
    """Skip the test that asks where `server` cannot pass it."""
    if reason := WAIVERS.get(server, {}).get(request.node.originalname):
        pytest.skip(f"waived for {server}: {reason}")
