"""What only some stores have beyond `Store`, and what asks for it; wrappers pass it on.

Operations on state files do not enter here: they are `Store` and its traits.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from asya_proxy.errors import Conflict, Exists
from asya_proxy.stores.base import Precondition


@dataclass(frozen=True, slots=True)
class Operations:
    """What a backend calls its conditional operations."""

    put: str = "put"
    delete: str = "delete"
    complete: str = "completion of an upload"


class Prepared(Protocol):
    """Content that is with the backend and visible to nobody before it is completed."""

    async def complete(self, when: Precondition) -> str:
        """Make it the object; its version. Raises Conflict and Exists as a put does, and may be asked again then."""

    async def abort(self) -> None: ...


@runtime_checkable
class InParts(Protocol):
    """A store that writes large content by another operation than small, with conditions of its own: a server may
    keep those of the one and ignore those of the other."""

    operations: Operations

    async def prepare(self, key: bytes, data: bytes) -> Prepared:
        """All of a large write but its last step; two requests."""

    async def keeps_promises(self, key: bytes, passed: bytes, stale: str | None) -> bool:
        """Whether whatever must be refused was, and whatever must be accepted; ten requests, and `passed` is then
        what lies at `key`. False too where others who asked the same at the same time came in between.

        `stale`: a version that `key` had before, if one is known.
        """


async def accepted(change: Awaitable[object]) -> bool:
    """Whether a conditional change was made, and not refused for its condition."""
    try:
        await change
    except (Conflict, Exists):
        return False
    return True
