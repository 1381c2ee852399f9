"""Extended attributes: `user.asya.NAME` is the proxy's attribute NAME, any other `user.NAME` is called so there.

Values are bytes here and text on the wire, decoded as file names are.
"""

from __future__ import annotations

import errno
import os

from asya_shim import changes, lookups, scopes
from asya_shim.namespace import fail, status
from asya_shim.paths import Place
from asya_shim.scopes import pending, refuse_below_unsent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List

_OURS = "user.asya."


def _wire_name(place: Place, attribute: Any) -> str:
    name = os.fsdecode(attribute)
    if not name.startswith("user."):
        raise fail(errno.ENOTSUP, place, "only user.* attributes are kept")
    return name[len(_OURS) :] if name.startswith(_OURS) else name


def _stored(place: Place) -> None:
    """Attributes are the stored file's: store it first."""
    scope = scopes.current()
    refuse_below_unsent(scope, place)
    node = pending(scope, place)
    if node is not None:
        node.commit()


def get(place: Place, attribute: Any, *, follow_symlinks: bool = True) -> bytes:
    """`os.getxattr`."""
    name = _wire_name(place, attribute)
    _stored(place)
    value = lookups.ask(place, place.remote.get_attr, place.key, name)
    if value is None:
        raise fail(errno.ENODATA, place)
    return os.fsencode(value)


def put(place: Place, attribute: Any, value: Any, flags: int = 0, *, follow_symlinks: bool = True) -> None:
    """`os.setxattr`."""
    name = _wire_name(place, attribute)
    _stored(place)
    if flags:
        exists = lookups.ask(place, place.remote.get_attr, place.key, name) is not None
        if flags & os.XATTR_CREATE and exists:
            raise fail(errno.EEXIST, place)
        if flags & os.XATTR_REPLACE and not exists:
            raise fail(errno.ENODATA, place)
    changes.set_attribute(scopes.current(), place, name, os.fsdecode(bytes(value)))


def remove(place: Place, attribute: Any, *, follow_symlinks: bool = True) -> None:
    """`os.removexattr`."""
    name = _wire_name(place, attribute)
    _stored(place)
    if lookups.ask(place, place.remote.get_attr, place.key, name) is None:
        raise fail(errno.ENODATA, place)
    changes.set_attribute(scopes.current(), place, name, None)


def names(place: Place, *, follow_symlinks: bool = True) -> List[str]:
    """`os.listxattr`: of a directory, none."""
    if not place.key or (pending(scopes.current(), place) is None and status(place).st_mode & 0o40000):
        return []
    _stored(place)
    found = lookups.ask(place, place.remote.list_attrs, place.key)
    return [name if name.startswith("user.") else _OURS + name for name in found]
