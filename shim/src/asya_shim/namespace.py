"""Names and metadata below a mount: what the path functions of `os` do there.

Each function takes places, acts as the running code's scope, and raises what a disk would raise.
Parents are implicit, permissions are kept in this process only, and there are no links.
"""

from __future__ import annotations

import errno
import os
import stat as modes
import time

from asya_shim import changes, lookups, original, scopes
from asya_shim.caches import lru_cache
from asya_shim.nodes import Node
from asya_shim.opening import open_raw
from asya_shim.paths import Place
from asya_shim.scopes import Scope, pending, refuse_below_unsent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

    from asya_shim.paths import FileId

FILE_MODE = modes.S_IFREG | 0o644
DIRECTORY_MODE = modes.S_IFDIR | 0o755
_BLOCK = 4096
_KEPT = 65536
"""Permissions and times remembered in this process, at most."""
_PLENTY = 2**40 // _BLOCK
_UNNAMED = (
    "st_atime",
    "st_mtime",
    "st_ctime",
    "st_atime_ns",
    "st_mtime_ns",
    "st_ctime_ns",
    "st_blksize",
    "st_blocks",
    "st_rdev",
)
"""The fields of a `stat_result` behind its ten of a tuple."""


def _are_in_order() -> bool:
    """Whether this interpreter takes them in this order, by position: in a quarter of the time that names take."""
    size = 10 + len(_UNNAMED)
    if os.stat_result.n_fields < size:
        return False
    probe = os.stat_result(range(size))
    return [getattr(probe, name) for name in _UNNAMED] == list(range(10, size))


_IN_ORDER = _are_in_order()

_permissions: Dict[FileId, int] = {}
_times: Dict[FileId, Tuple[Any, int, int]] = {}


def fail(number: int, place: Place, text: str = "") -> OSError:
    """The built-in exception for an errno about `place`."""
    return OSError(number, text or os.strerror(number), place.shown)


def _remember(table: Dict[FileId, Any], name: FileId, value: Any) -> None:
    if len(table) >= _KEPT and name not in table:
        del table[next(iter(table))]
    table[name] = value


@lru_cache(4096)
def _inode(mount: str, key: bytes) -> int:
    """A number that is the same for the same name in every process, and never 0."""
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b

    digest = blake2b(mount.encode() + b"\0" + key, digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1 or 1


def _result(
    place: Place, mode: int, size: int, mtime_ns: int, atime_ns: Optional[int] = None, links: int = 1
) -> os.stat_result:
    if _permissions:
        chosen = _permissions.get(place.id)
        if chosen is not None:
            mode = modes.S_IFMT(mode) | chosen
    mtime = mtime_ns / 1e9
    if atime_ns is None:
        atime_ns, atime = mtime_ns, mtime
    else:
        atime = atime_ns / 1e9
    seconds = mtime_ns // 1000000000
    values = (
        mode,
        _inode(*place.id),
        place.mount.device,
        links,
        os.getuid(),
        os.getgid(),
        size,
        atime_ns // 1000000000,
        seconds,
        seconds,
        atime,
        mtime,
        mtime,
        atime_ns,
        mtime_ns,
        mtime_ns,
        _BLOCK,
        (size + 511) // 512,
        0,
    )
    if _IN_ORDER:
        return os.stat_result(values)
    return os.stat_result(values[:10], dict(zip(_UNNAMED, values[10:])))


def directory_status(place: Place) -> os.stat_result:
    """`stat` of a directory. No store knows when another pod changed it last, so its time is now: whoever caches
    by it (`mailbox`, the import system) looks again."""
    return _result(place, DIRECTORY_MODE, _BLOCK, time.time_ns(), links=2)


def file_status(place: Place, size: int, mtime_ns: int, version: Optional[str]) -> os.stat_result:
    """`stat` of a file at `version` (None: not stored yet)."""
    times = _times.get(place.id) if _times else None
    if times is not None and times[0] == version:
        return _result(place, FILE_MODE, size, times[2], times[1])
    return _result(place, FILE_MODE, size, mtime_ns)


def node_status(node: Node) -> os.stat_result:
    """`fstat` of an open file."""
    if node.unlinked:
        return _result(node.place, FILE_MODE, len(node), node.mtime_ns, links=0)
    version = None if node.pending else node.version
    return file_status(node.place, len(node), node.mtime_ns, version)


def status(place: Place) -> os.stat_result:
    """`os.stat`, `os.lstat`."""
    scope = scopes.current()
    if not place.key:
        return directory_status(place)
    node = pending(scope, place)
    if node is not None:
        if place.directory:
            raise fail(errno.ENOTDIR, place)
        return node_status(node)
    info = lookups.stat(scope, place)
    if info is None:
        if _is_seen(scope, place):
            return directory_status(place)
        refuse_below_unsent(scope, place)
        raise lookups.absent(place)
    if not info.is_file:
        return directory_status(place)
    if place.directory:
        raise fail(errno.ENOTDIR, place)
    return file_status(place, info.size, info.mtime_ns, info.version)


def _is_seen(scope: Scope, place: Place) -> bool:
    """Whether it is a directory for this scope though the store has nothing there."""
    return place.id in scope.directories or bool(_pending_below(scope, place))


def _pending_below(scope: Scope, place: Place) -> List[Node]:
    """Files of this scope that are not stored yet, anywhere below `place`."""
    prefix = place.key + b"/" if place.key else b""
    name = place.mount.name
    return [
        node
        for node in list(scope.nodes.values()) + list(scope.touched)
        if node.place.mount.name == name and node.place.key.startswith(prefix) and node.pending
    ]


def access(place: Place, mode: int, *, effective_ids: bool = False, follow_symlinks: bool = True) -> bool:
    """`os.access`. Raises StateUnavailableError where it could not be asked."""
    try:
        found = status(place)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if modes.S_ISDIR(found.st_mode):
        return True
    return not mode & os.X_OK or bool(found.st_mode & 0o111)


def listing(place: Place) -> List[lookups.Entry]:
    """The entries of a directory as this scope sees it, in byte order; one request for each thousand."""
    scope = scopes.current()
    if pending(scope, place) is not None:
        raise fail(errno.ENOTDIR, place)
    prefix = len(place.key) + 1 if place.key else 0
    found: Dict[bytes, lookups.Entry] = {}
    exists = not place.key
    for listed in lookups.listing(place):
        exists = True
        name = listed.key[prefix:]
        if name:
            found[name] = lookups.Entry(name, listed.is_file, listed.size, listed.mtime_ns, listed.version)
    for node in _pending_below(scope, place):
        name, _, deeper = node.place.key[prefix:].partition(b"/")
        exists = True
        found[name] = lookups.Entry(name, not deeper, len(node), node.mtime_ns, "")
    below = place.key + b"/" if place.key else b""
    for mount, key in list(scope.directories):
        if mount == place.mount.name and key.startswith(below) and len(key) > prefix:
            name, _, deeper = key[prefix:].partition(b"/")
            exists = True
            if name not in found:
                found[name] = lookups.Entry(name, False, 0, 0, "")
    if not exists and place.id not in scope.directories:
        info = lookups.stat(scope, place)
        if info is None:
            refuse_below_unsent(scope, place)
            raise lookups.absent(place)
        if info.is_file:
            raise fail(errno.ENOTDIR, place)
    if place.key:
        _see(scope, place)
    return [found[name] for name in sorted(found)]


def _see(scope: Scope, place: Place) -> None:
    if len(scope.directories) >= _KEPT:
        scope.directories.clear()
    scope.directories.add(place.id)


def make_directory(place: Place, mode: int = 0o777) -> None:
    """`os.mkdir`."""
    scope = scopes.current()
    if _is_dotted(place):
        status(place)
    if not place.key or pending(scope, place) is not None or place.id in scope.directories:
        raise fail(errno.EEXIST, place)
    refuse_below_unsent(scope, place)
    try:
        changes.make_directory(scope, place)
    except (FileExistsError, IsADirectoryError):
        raise fail(errno.EEXIST, place) from None
    _see(scope, place)
    end = place.key.find(b"/")
    while end > 0:
        # `Path.mkdir(parents=True)` makes the parents only where it is told that they are missing.
        scope.directories.add((place.mount.name, place.key[:end]))
        end = place.key.find(b"/", end + 1)
    keep_creation_mode(place, mode)


def remove_directory(place: Place) -> None:
    """`os.rmdir`."""
    scope = scopes.current()
    if not place.key:
        raise fail(errno.EBUSY, place)
    if _is_dotted(place):
        status(place)
        raise fail(errno.EINVAL, place)
    refuse_below_unsent(scope, place)
    if pending(scope, place) is not None:
        raise fail(errno.ENOTDIR, place)
    if _pending_below(scope, place):
        raise fail(errno.ENOTEMPTY, place)
    try:
        changes.remove_directory(scope, place)
    except FileNotFoundError:
        if place.id not in scope.directories:
            raise
    scope.directories.discard(place.id)


def unlink(place: Place) -> None:
    """`os.unlink`, `os.remove`."""
    scope = scopes.current()
    if not place.key or place.id in scope.directories:
        raise fail(errno.EISDIR, place)
    if place.directory:
        status(place)
        raise fail(errno.EISDIR, place)
    refuse_below_unsent(scope, place)
    node = pending(scope, place)
    if node is None:
        changes.delete(scope, place)
        node = scope.nodes.get(place.id)
    elif node.version is None and node.missing:
        changes.demand(scope, place)
    else:
        try:
            changes.delete(scope, place)
        except FileNotFoundError:
            pass  # it was not stored yet
    _permissions.pop(place.id, None)
    if node is not None:
        node.unlink()


def rename(source: Place, target: Place) -> None:
    """`os.rename`, `os.replace`: readers of the target see old or new."""
    if source.mount is not target.mount:
        raise changes.crossing(source.shown, target.shown)
    scope = scopes.current()
    try:
        try:
            _rename(scope, source, target)
        except FileNotFoundError:
            _refuse_below_a_file(target)
            raise
    except OSError as error:
        error.filename, error.filename2 = source.shown, target.shown
        raise


def _is_dotted(place: Place) -> bool:
    """Whether it was written as `x/.` or `x/..`, which names can be looked at, and neither moved nor removed."""
    return place.directory and os.path.basename(os.fsencode(place.shown)) in (b".", b"..")


def _refuse_below_a_file(place: Place) -> None:
    """A kernel looks at both parents before it looks for the source."""
    try:
        status(Place(place.mount, place.key, place.shown))
    except FileNotFoundError:
        return


def _rename(scope: Scope, source: Place, target: Place) -> None:
    if not source.key or not target.key:
        raise fail(errno.EBUSY, source)
    for place in (source, target):
        refuse_below_unsent(scope, place)
    if _is_dotted(source) or _is_dotted(target):
        for place in filter(_is_dotted, (source, target)):
            status(place)
        raise fail(errno.EBUSY, source)
    moving = pending(scope, source)
    if moving is not None:
        moving.commit()
    if source.id == target.id:
        if target.directory:
            status(target)
        status(source)
        return
    is_directory = source.id in scope.directories or not _is_known_file(scope, source)
    if target.key + b"/" == source.key[: len(target.key) + 1]:
        raise fail(errno.ENOTEMPTY, source)
    if source.key + b"/" == target.key[: len(source.key) + 1]:
        raise fail(errno.EINVAL if is_directory else errno.ENOTDIR, source)
    if is_directory:
        if pending(scope, target) is not None:
            raise fail(errno.ENOTDIR, source)
        if _pending_below(scope, target):
            raise fail(errno.ENOTEMPTY, source)
        _rename_directory(scope, source, target)
        return
    if source.directory or target.directory:
        raise fail(errno.ENOTDIR, source)
    if target.id in scope.directories or _pending_below(scope, target):
        raise fail(errno.EISDIR, source)
    changes.rename(scope, source, target)
    replaced = scope.nodes.get(target.id)
    if replaced is not None:
        replaced.unlink()
    moved = scope.nodes.get(source.id)
    if moved is not None:
        moved.move(target)
    _move_kept(source, target)


def _is_known_file(scope: Scope, place: Place) -> bool:
    token = scope.ledger.token(place.id)
    if token is not None and token.version is not None:
        return True
    info = lookups.stat(scope, place)
    if info is None:
        raise lookups.absent(place)
    return info.is_file


def _rename_directory(scope: Scope, source: Place, target: Place) -> None:
    for node in _pending_below(scope, source):
        node.commit()
    changes.rename_directory(scope, source, target)
    below = source.key + b"/"
    for node in list(scope.nodes.values()):
        key = node.place.key
        if node.place.mount is source.mount and key.startswith(below):
            node.move(Place(target.mount, target.key + b"/" + key[len(below) :], node.place.shown))
    _follow(source, target)
    for name in [name for name in scope.directories if name[0] == source.mount.name]:
        if name[1] == source.key or name[1].startswith(below):
            scope.directories.discard(name)
            scope.directories.add((name[0], target.key + name[1][len(source.key) :]))
    _see(scope, target)


def _follow(source: Place, target: Place) -> None:
    """Open descriptors of directories, and the working directory, go where their directory goes."""
    from asya_shim import paths

    below = source.key + b"/"
    for fd, place in list(paths.directories.items()):
        if place.mount is source.mount and (place.key + b"/").startswith(below):
            paths.directories[fd] = Place(target.mount, target.key + place.key[len(source.key) :], place.shown)
    if paths.cwd is not None and (paths.cwd + "/").startswith(source.path + "/"):
        paths.set_cwd(target.path + paths.cwd[len(source.path) :])


def _move_kept(source: Place, target: Place) -> None:
    for table in (_permissions, _times):
        table.pop(target.id, None)
        if source.id in table:
            _remember(table, target.id, table.pop(source.id))


def truncate(place: Place, length: int) -> None:
    """`os.truncate`."""
    if length < 0:
        raise fail(errno.EINVAL, place)
    if type(place.shown) is int:
        original.ftruncate(place.shown, length)  # a name it may have no more
        return
    with open_raw(place, "r", True) as file:
        file.truncate(length)


def keep_permissions(place: Place, mode: int) -> None:
    """Remember what a file was created with, or given by `chmod`, in this process."""
    _remember(_permissions, place.id, modes.S_IMODE(mode))


def is_particular(mode: int) -> bool:
    """Whether a file created with `mode`, under the usual umask, shows other permissions than most."""
    return mode & 0o755 not in (0o755, 0o644)


def keep_creation_mode(place: Place, mode: int) -> None:
    """Remember the mode something was created with, under the usual umask, where it is a particular one."""
    if is_particular(mode):
        keep_permissions(place, mode & 0o755)


def chmod(place: Place, mode: int, *, follow_symlinks: bool = True) -> None:
    """`os.chmod`: kept in this process only."""
    status(place)
    keep_permissions(place, mode)


def chown(place: Place, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
    """`os.chown`: a state file has no owner, so only what changes nothing succeeds."""
    status(place)
    if uid not in (-1, os.getuid()) or gid not in (-1, os.getgid()):
        raise fail(errno.EPERM, place, "state files have no owner")


def utime(
    place: Place,
    times: Optional[Tuple[float, float]] = None,
    *,
    ns: Optional[Tuple[int, int]] = None,
    follow_symlinks: bool = True,
) -> None:
    """`os.utime`: a metadata change; dropped (but shown in this process) right after a write of this scope's own."""
    if times is not None and ns is not None:
        raise ValueError("utime: you may specify either 'times' or 'ns' but not both")
    if ns is not None:
        atime, mtime = ns
    elif times is not None:
        atime, mtime = int(times[0] * 10**9), int(times[1] * 10**9)
    else:
        atime = mtime = time.time_ns()
    if place.directory:
        status(place)
    scope = scopes.current()
    node = pending(scope, place)
    if node is not None:
        node.mtime_ns = mtime
        return
    token = scope.ledger.token(place.id)
    if token is not None and token.own and token.version is not None and not token.stale:
        _remember(_times, place.id, (token.version, atime, mtime))
        return
    found = status(place)
    if modes.S_ISDIR(found.st_mode):
        return
    version = changes.set_attribute(scope, place, "asya.mtime", str(mtime))
    _remember(_times, place.id, (version, atime, mtime))


def statvfs(place: Place) -> os.statvfs_result:
    """`os.statvfs`: plenty; the backend's limits show when they are met."""
    status(place)
    files = 2**31
    return os.statvfs_result((_BLOCK, _BLOCK, _PLENTY, _PLENTY, _PLENTY, files, files, files, 0, 255))


def read_link(place: Place) -> Any:
    """`os.readlink`: there are no links."""
    status(place)
    raise fail(errno.EINVAL, place)


def refuse_special(place: Place, *args: Any, **kwargs: Any) -> None:
    """`os.mkfifo`, `os.mknod`: refused as FAT refuses them."""
    raise fail(errno.EPERM, place, "a state mount holds files and directories only")


def change_directory(place: Place) -> None:
    """`os.chdir`."""
    from asya_shim import paths

    if not modes.S_ISDIR(status(place).st_mode):
        raise fail(errno.ENOTDIR, place)
    paths.set_cwd(place.path)
