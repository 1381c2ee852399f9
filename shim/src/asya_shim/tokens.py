"""What one observer (a turn; outside turns, a task or thread) knows of each state file.

Contract section 4: a token is the version, or the absence, that a later change relies on. The room
holds rules and no I/O. Under LWW nobody asks for tokens; the marks of failed lookups count in both
modes.
"""

from __future__ import annotations

from _weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional, Set

    from asya_shim.paths import FileId

WEAK = 0
"""`stat` or `exists()` said so: the first content read replaces it."""
OPENED = 1
"""Opened for writing without having looked."""
SEEN = 2
"""Content was read, absence was learnt, or it is our own write."""

_LIMIT = 100_000


class Token:
    """`version` None is absence. `own`: a change of ours made it so. `stale`: a conflict or an unknown
    outcome has overtaken it."""

    __slots__ = ("kind", "own", "stale", "version")

    def __init__(self, version: Optional[str], kind: int, own: bool = False) -> None:
        self.version = version
        self.kind = kind
        self.own = own
        self.stale = False


class Ledger:
    """Tokens and marks of one observer.

    `latest`: outside turns the latest observation counts, in a turn the first. `inherited` is what
    the process read before its first turn; a turn falls back on it, and its commits move it along.
    """

    def __init__(self, latest: bool = False, inherited: Optional[Ledger] = None) -> None:
        self._latest = latest
        self._inherited = inherited
        self._tokens: Dict[FileId, Token] = {}
        self.marked: Set[FileId] = set()
        """The files of which a lookup failed, and no content or absence has been learnt since."""

    def saw(self, name: FileId, version: Optional[str]) -> None:
        """Content of `version` was read, or (None) the file's absence was learnt."""
        if self.marked:
            self.marked.discard(name)
        token = self._tokens.get(name)
        if token is None or token.kind != SEEN or token.stale or (self._latest and token.version != version):
            self._set(name, Token(version, SEEN))

    def saw_name(self, name: FileId, version: str) -> None:
        """The file was seen to exist, its content was not."""
        token = self._tokens.get(name)
        if token is None or (token.kind == WEAK and self._latest):
            self._set(name, Token(version, WEAK))

    def opened(self, name: FileId, version: Optional[str]) -> None:
        """The file was opened for writing by one who knew nothing of it."""
        if self.token(name) is None:
            self._set(name, Token(version, OPENED))

    def wrote(self, name: FileId, version: Optional[str]) -> None:
        """A change of our own made it `version`, or (None) removed it."""
        if self.marked:
            self.marked.discard(name)
        token = self._tokens.get(name)
        if token is None or token.stale or not token.own:
            self._set(name, Token(version, SEEN, True))
        else:
            token.version = version
        if self._inherited is not None and name in self._inherited._tokens:
            self._inherited.wrote(name, version)

    def appended(self, name: FileId, version: str, base: Optional[str]) -> None:
        """Our append made `base` into `version`; the token moves along only if it was at `base`."""
        token = self._tokens.get(name)
        if token is not None and token.version == base and not token.stale:
            token.version = version
        if self._inherited is not None:
            self._inherited.appended(name, version, base)

    def lost(self, name: FileId) -> None:
        """A change met a conflict, or its outcome is unknown."""
        token = self._tokens.get(name)
        if token is not None:
            if token.kind == SEEN:
                token.stale = True
            else:
                del self._tokens[name]
        if self._inherited is not None:
            self._inherited.lost(name)

    def failed(self, name: FileId) -> None:
        """A read, stat or lookup of it could not be answered."""
        self.marked.add(name)

    def marks_moved(self, mount: str, source: bytes, target: bytes) -> None:
        """A rename took what lies below `source` to `target`, and the marks of failed lookups go with it."""
        for name in [name for name in self.marked if name[0] == mount and name[1].startswith(source)]:
            self.marked.discard(name)
            self.marked.add((mount, target + name[1][len(source) :]))

    def token(self, name: FileId) -> Optional[Token]:
        """What a change of `name` has to rely on; None where nothing is known."""
        own = self._tokens.get(name)
        if self._inherited is not None and (own is None or own.kind != SEEN):
            return self._inherited._tokens.get(name) or own
        return own

    def known_below(self, mount: str, prefix: bytes) -> Dict[bytes, Token]:
        """What a change would rely on of the files below a directory, by their names from there."""
        names = set(self._tokens)
        if self._inherited is not None:
            names.update(self._inherited._tokens)
        found = {}
        for name in names:
            token = self.token(name) if name[0] == mount and name[1].startswith(prefix) else None
            if token is not None:
                found[name[1][len(prefix) :]] = token
        return found

    def moved(self, name: FileId, target: FileId, version: Optional[str]) -> None:
        """A rename of its directory took `name` to `target`, where it is now at `version`.

        None: what was taken there was not what was known, which is then stale. Who knew that there was no such
        file knows it of the new name.
        """
        token = self.token(name)
        assert token is not None
        made = Token(version, token.kind, token.own)
        made.stale = token.stale or (token.version is not None and version is None)
        self.wrote(name, None)
        if made.stale and made.kind != SEEN:
            self._tokens.pop(target, None)
        else:
            self._set(target, made)

    def _set(self, name: FileId, token: Token) -> None:
        if len(self._tokens) >= _LIMIT:
            self._make_room(name)
        self._tokens[name] = token

    def _make_room(self, name: FileId) -> None:
        """A long-lived process without turns: the oldest knowledge goes first."""
        if name not in self._tokens:
            del self._tokens[next(iter(self._tokens))]


class Imported(Ledger):
    """What the process read before its first turn: the latest that whoever read it first has seen."""

    def __init__(self) -> None:
        super().__init__()
        self._observers: Dict[FileId, ref[Ledger]] = {}

    def saw_by(self, observer: Ledger, name: FileId, version: Optional[str]) -> None:
        """`observer` saw it. Whoever was first may see it anew; what others see never makes its write succeed."""
        token = self._tokens.get(name)
        if token is None:
            while len(self._observers) >= _LIMIT:
                del self._observers[next(iter(self._observers))]
            self._observers[name] = ref(observer)
        elif token.version != version and name in self._observers and self._observers[name]() is observer:
            self._set(name, Token(version, SEEN))
        self.saw(name, version)


class ProcessLedger(Ledger):
    """A ledger outside turns: until the first turn begins, what it sees is also the process's."""

    def __init__(self, imported: Imported) -> None:
        super().__init__(latest=True)
        self._imported = imported

    def saw(self, name: FileId, version: Optional[str]) -> None:
        Ledger.saw(self, name, version)
        if not begun:
            token = self._imported._tokens.get(name)
            if token is None or token.stale or token.version != version:
                self._imported.saw_by(self, name, version)

    def wrote(self, name: FileId, version: Optional[str]) -> None:
        Ledger.wrote(self, name, version)
        if not begun:
            self._imported.wrote(name, version)

    def appended(self, name: FileId, version: str, base: Optional[str]) -> None:
        super().appended(name, version, base)
        if not begun:
            self._imported.appended(name, version, base)

    def lost(self, name: FileId) -> None:
        super().lost(name)
        if not begun:
            self._imported.lost(name)


begun = False
"""Whether any turn has been entered in this process."""


def begin_turns() -> None:
    """Remember that a turn has been entered."""
    global begun
    begun = True
