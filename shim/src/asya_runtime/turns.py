"""The seam between the runtime and the state: what a turn can do, and a turn of an actor without state.

Nothing else in the runtime knows the shim. An actor without state never imports it.
"""

import sys
from types import TracebackType
from typing import Callable, Dict, Optional, Protocol, Type


class Turn(Protocol):
    """One invocation as the state sees it; `asya_shim.turns.Turn` is the real one."""

    @property
    def stored(self) -> bool:
        """Whether anything of it has reached the state."""

    def __enter__(self) -> "Turn": ...

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None: ...

    def commit(self) -> None:
        """Store what is open; raises where that fails."""

    def discard(self, because: Optional[BaseException] = None) -> None:
        """Drop what is open; `because` is what the handler raised."""

    def cancel(self) -> None:
        """Discard from another thread, and let later file calls of the turn raise."""


class Stateless:
    """A turn of an actor without state."""

    stored = False

    def __enter__(self) -> "Stateless":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        return None

    def commit(self) -> None:
        return None

    def discard(self, because: Optional[BaseException] = None) -> None:
        return None

    def cancel(self) -> None:
        return None


class Turns:
    """Makes turns, and knows a conflict when it sees one."""

    def __init__(
        self,
        new: Callable[[], Turn] = Stateless,
        conflict: Optional[Type[BaseException]] = None,
    ) -> None:
        self.new = new
        self._conflict = conflict
        self.stateful = new is not Stateless

    def is_conflict(self, error: BaseException) -> bool:
        """Whether `error` says that somebody else wrote a file first."""
        return self._conflict is not None and isinstance(error, self._conflict)


def unstored() -> Dict[str, int]:
    """How many changes the shim could not store, by cause; empty where it is not there."""
    endings = sys.modules.get("asya_shim.endings")
    return {} if endings is None else dict(endings.failures)


def of_the_shim(process_wide: bool) -> Turns:
    """Turns of the active shim; `process_wide` where they run one at a time."""
    from asya_shim.errors import StateConflictError
    from asya_shim.turns import Turn as StateTurn

    return Turns(lambda: StateTurn(process_wide=process_wide), StateConflictError)
