"""How changing the state meets the ledger: every write, delete, rename and append goes through here.

In CAS each change is conditional on what its scope observed; a conflict or an unknown outcome makes
that observation stale. In LWW changes are unconditional. In both, a file whose lookup failed is not
changed, except by appends.
"""

from __future__ import annotations

import errno

from asya_shim import scopes, tokens
from asya_shim.errors import StateConflictError, StateUnavailableError, wire_code
from asya_shim.lookups import absent, ask, named
from asya_shim.paths import Place
from asya_shim.scopes import Scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, NoReturn, Optional, Tuple, Union

    Condition = Tuple[Optional[str], bool]
    """`(if_version, if_absent)`; `(None, False)` is unconditional."""

UNCONDITIONAL: Condition = (None, False)


def demand(scope: Scope, place: Place) -> None:
    """Refuse a change of a file that the scope failed to look up.

    Raises:
        StateUnavailableError: a lookup failed and neither content nor absence has been learnt since.
    """
    if place.id in scope.ledger.marked:
        text = "an earlier read of this file failed, so it is not overwritten; read it again first"
        raise named(place.remote.failure("unavailable", text, place.key), place)


def condition(scope: Scope, place: Place) -> Condition:
    """What a change of `place` by `scope` has to rely on; asks for the version where CAS needs one nobody has seen.

    Raises:
        StateUnavailableError: see `demand`, or the version could not be asked.
        StateConflictError: what the scope knows of the file is stale.
        IsADirectoryError: it is a directory.
    """
    ledger = scope.ledger
    if place.id in ledger.marked:
        demand(scope, place)
    if place.remote.client.consistency == "lww":
        return UNCONDITIONAL
    token = ledger.token(place.id)
    if token is None:
        info = ask(place, place.remote.stat, place.key)
        if place.remote.consistency == "lww":
            return UNCONDITIONAL
        if info is not None and not info.is_file:
            raise named(place.remote.failure("is_directory", "", place.key), place)
        ledger.opened(place.id, None if info is None else info.version)
        token = ledger.token(place.id)
        assert token is not None
    if token.stale:
        text = "an earlier write of this file met a conflict or an unknown outcome; read it again first"
        raise named(place.remote.failure("conflict", text, place.key), place)
    return token.version, token.version is None


def attempt(scope: Scope, place: Place, when: Condition, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A step of a change on condition `when`: what it raises names the path, and the ledger learns of it."""
    try:
        return call(*args, **kwargs)
    except OSError as error:
        _failed(scope, place, when, error)


def note_written(scope: Scope, place: Place, version: str) -> None:
    """A change of ours has made the file `version`."""
    _note_stored(scope)
    scope.ledger.wrote(place.id, version)


def _change(scope: Scope, place: Place, when: Condition, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    result = attempt(scope, place, when, call, *args, **kwargs)
    _note_stored(scope)
    return result


def _note_stored(scope: Scope) -> Optional[Scope]:
    """The turn that has made the change by a file of another scope: its token moves along. None: no other's file."""
    scope.stored = True
    if not tokens.begun or scopes.current_turn.get() is scope:
        return None
    turn = scopes.writer(uncancelled=True)
    if turn is None or turn is scope:
        return None
    turn.stored = True
    return turn


def _failed(scope: Scope, place: Place, when: Condition, error: OSError) -> NoReturn:
    if isinstance(error, StateUnavailableError):
        if wire_code(error) != "unavailable":
            # It may have landed.
            scope.ledger.lost(place.id)
            _note_stored(scope)
    elif isinstance(error, StateConflictError):
        scope.ledger.lost(place.id)
    elif isinstance(error, FileExistsError) and when[1]:
        scope.ledger.lost(place.id)
        text = "the file was absent when this program looked, and somebody has created it since"
        error = place.remote.failure("conflict", text, place.key)
    raise named(error, place) from None


def write(scope: Scope, place: Place, data: Union[bytes, bytearray], when: Condition) -> str:
    """Replace the content; the new version."""
    try:
        version = place.remote.write(place.key, data, if_version=when[0], if_absent=when[1])
    except OSError as error:
        _failed(scope, place, when, error)
    turn = _note_stored(scope)
    scope.ledger.wrote(place.id, version)
    if turn is not None:
        turn.ledger.appended(place.id, version, when[0])
    return version


def create(scope: Scope, place: Place) -> str:
    """Create an empty file, atomically. Raises FileExistsError."""
    version: str = _change(scope, place, UNCONDITIONAL, place.remote.write, place.key, b"", if_absent=True)
    scope.ledger.wrote(place.id, version)
    return version


def append(scope: Scope, place: Place, data: bytes) -> Tuple[str, Optional[str]]:
    """Add at the end, creating the file if need be; `(version, version added to)`. Never conflicts."""
    version: str
    base: Optional[str]
    version, base = attempt(scope, place, UNCONDITIONAL, place.remote.append, place.key, data)
    turn = _note_stored(scope)
    scope.ledger.appended(place.id, version, base)
    if turn is not None:
        turn.ledger.appended(place.id, version, base)
    return version, base


def delete(scope: Scope, place: Place) -> None:
    """Delete a file. Raises FileNotFoundError, IsADirectoryError, StateConflictError."""
    when = condition(scope, place)
    if when[1]:
        # It was absent when looked at last.
        info = ask(place, place.remote.stat, place.key)
        if info is None:
            raise absent(place)
        scope.ledger.lost(place.id)
        text = "the file was absent when this program looked, and somebody has created it since"
        raise named(place.remote.failure("conflict", text, place.key), place)
    try:
        _change(scope, place, when, place.remote.delete, place.key, if_version=when[0])
    except FileNotFoundError:
        scope.ledger.saw(place.id, None)
        raise
    scope.ledger.wrote(place.id, None)


def rename(scope: Scope, source: Place, target: Place) -> str:
    """Move a file over another; the new version of the target."""
    when = condition(scope, target)
    token = scope.ledger.token(source.id)
    demand(scope, source)
    source_version = None
    if source.remote.consistency != "lww":
        source_version = condition(scope, source)[0] if token is not None else None
    try:
        version: str = _change(
            scope,
            target,
            when,
            source.remote.rename,
            source.key,
            target.key,
            if_version=when[0],
            if_absent=when[1],
            source_version=source_version,
        )
    except OSError as error:
        error.filename, error.filename2 = source.shown, target.shown
        raise
    scope.ledger.wrote(target.id, version)
    scope.ledger.wrote(source.id, None)
    return version


def rename_directory(scope: Scope, source: Place, target: Place) -> None:
    """Move a directory with all that is below it.

    In CAS what the scope knows of the files below goes with them. Their versions there are others, and the proxy
    alone can tell which of them it moved as they were known; of the rest nothing is known any more.
    """
    ledger, mount = scope.ledger, source.mount.name
    old, new = source.key + b"/", target.key + b"/"
    known = {} if source.remote.consistency == "lww" else ledger.known_below(mount, old)
    there = {} if source.remote.consistency == "lww" else ledger.known_below(mount, new)
    # Where nothing was, there may now be one that this rename has put there.
    asked: Dict[bytes, Optional[str]] = {name: None for name, token in there.items() if token.version is None}
    asked.update((name, token.version) for name, token in known.items() if token.version is not None)
    for name, token in known.items():
        if token.stale or token.version is None:
            asked.pop(name, None)
    try:
        moved: Dict[bytes, str] = _change(
            scope, target, UNCONDITIONAL, source.remote.rename_directory, source.key, target.key, asked
        )
    except OSError as error:
        error.filename, error.filename2 = source.shown, target.shown
        raise
    ledger.marks_moved(mount, old, new)
    for name, version in moved.items():
        if name not in known:
            ledger.wrote((mount, new + name), version)
    for name in known:
        ledger.moved((mount, old + name), (mount, new + name), moved.get(name))


def make_directory(scope: Scope, place: Place) -> None:
    """Make an empty directory. Raises FileExistsError."""
    _change(scope, place, UNCONDITIONAL, place.remote.make_directory, place.key)


def remove_directory(scope: Scope, place: Place) -> None:
    """Remove an empty directory. Raises FileNotFoundError, NotADirectoryError, OSError(ENOTEMPTY)."""
    _change(scope, place, UNCONDITIONAL, place.remote.remove_directory, place.key)


def set_attribute(scope: Scope, place: Place, name: str, value: Optional[str]) -> str:
    """Set (or with None remove) an attribute of a file; its new version. The token moves along if it was current."""
    token = scope.ledger.token(place.id)
    demand(scope, place)
    before = token.version if token is not None and not token.stale else None
    call: Callable[..., str] = place.remote.remove_attr if value is None else place.remote.set_attr
    values = () if value is None else (value,)
    strict = place.remote.consistency != "lww" and before is not None
    version: str = _change(
        scope, place, UNCONDITIONAL, call, place.key, name, *values, if_version=before if strict else None
    )
    if version and strict:
        scope.ledger.appended(place.id, version, before)
    return version


def crossing(source: Any, target: Any) -> OSError:
    """What a rename between a mount and something else raises; `shutil.move` then copies."""
    return OSError(errno.EXDEV, "a rename cannot leave or enter a state mount", source, None, target)
