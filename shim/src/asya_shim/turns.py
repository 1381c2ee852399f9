"""Turns: one invocation of a handler, as the state sees it.

A turn remembers what its code read, so that what it writes relies on that and on nothing else; at its
end it commits or discards what is still open in it. Without activation a turn is a few empty
containers and costs next to nothing.
"""

from contextlib import contextmanager
from contextvars import Token
from types import TracebackType
from typing import Iterator, List, Optional, Type

from asya_contract.tracing import incoming
from asya_shim import scopes, tokens, traces


class Turn(scopes.Scope):
    """One turn. As a context manager it makes itself current in this context and, leaving, commits nothing.

    `process_wide`: everything in the process that has no turn of its own counts to it, which is right
    where turns run one at a time.
    """

    is_turn = True

    def __init__(self, *, process_wide: bool = False) -> None:
        super().__init__(tokens.Ledger(inherited=scopes.imported))
        self.process_wide = process_wide
        traced = incoming.get()
        if traced is not None:
            traces.follow(self, traced)
        self._entered: List[Token[Optional[scopes.Scope]]] = []

    def __enter__(self) -> "Turn":
        tokens.begin_turns()
        self._entered.append(scopes.current_turn.set(self))
        if self.process_wide:
            scopes.ambient.append(self)
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        scopes.current_turn.reset(self._entered.pop())
        if self.process_wide:
            scopes.ambient.remove(self)

    def commit(self) -> None:
        """Store what is open and changed in this turn, and process-wide files that it wrote to.

        Files stay open. Tries all of them and then raises the first failure, also one that was lost
        before (a file collected without `close()`).
        """
        try:
            if scopes.is_active():
                from asya_shim.endings import commit_scope

                commit_scope(self)
        finally:
            self.ended = True

    def discard(self, because: Optional[BaseException] = None) -> None:
        """Close what is open in this turn and drop its changes; bytes flushed to append handles are stored.

        `because` is what the code raised: where that is a library's word for the guard at the mount path, a log
        line says what works. Raises the first failure of such an append, after trying all.
        """
        if because is not None and scopes.is_active():
            from asya_shim import leaks

            leaks.explain(because)
        try:
            if self.files or self.touched:
                from asya_shim.endings import discard_scope

                discard_scope(self)
        finally:
            self.ended = True

    def cancel(self) -> None:
        """Discard, and let each later file call of this turn raise OSError(ECANCELED)."""
        self.cancelled = True
        self.discard()


@contextmanager
def turn(*, process_wide: bool = False) -> Iterator[Turn]:
    """A block as a turn: committed when it ends, discarded when it raises. SystemExit with 0 commits."""
    current = Turn(process_wide=process_wide)
    with current:
        try:
            yield current
        except SystemExit as leaving:
            if leaving.code in (None, 0):
                current.commit()
            else:
                current.discard()
            raise
        except BaseException as error:
            current.discard(error)
            raise
        current.commit()
