"""Replacements for the functions of `os`, `io` and `builtins`: whose path is it, and on to the rest of the shim.

Each is a bound method of one object: the interpreter never binds those again when a class has one as
an attribute (`pathlib` of Python 3.9 and 3.10, `joblib`), they pickle by reference, and calling one
costs no more than a function. The first lines of `stat` and `open` are what every call in the process
pays; see `paths.needle`.
"""

from __future__ import annotations

import errno
import os
import posix
from types import MethodType

from asya_shim import attributes, descriptors, directories, namespace, original, paths
from asya_shim.layers import dress
from asya_shim.lookups import watch
from asya_shim.opening import open_state, parse_mode
from asya_shim.paths import Place, known, locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Set, Tuple

_stat = posix.stat
_lstat = posix.lstat


_KEPT = 1024


class Hooks:
    """The object that all replacements are bound to."""

    __slots__ = ("elsewhere", "needle", "routes", "suspect")

    def __init__(self) -> None:
        self.needle = "\0"
        self.elsewhere: Set[str] = set()
        """Paths that have the needle in them and are not below a mount."""
        self.suspect: Tuple[str, ...] = ("",)
        """What an absolute path below the mount begins with, if no `..` is in it."""
        self.routes: Dict[str, Any] = {}

    def __reduce__(self) -> str:
        return "HOOKS"

    def __getattr__(self, name: str) -> Any:
        # Only for unpickling a replacement made by `_route`.
        try:
            return self.routes[name]
        except KeyError:
            raise AttributeError(name) from None

    def is_elsewhere(self, path: str) -> bool:
        """Whether a path that has the needle in it is plainly not below the mount; False may mean that nobody knows."""
        if not path.startswith("/") or path.startswith(self.suspect) or "/.." in path:
            return False
        if len(self.elsewhere) >= _KEPT:
            self.elsewhere.clear()
        self.elsewhere.add(path)
        return True

    # The two that matter for speed

    def stat(self, path: Any, *, dir_fd: Optional[int] = None, follow_symlinks: bool = True) -> os.stat_result:
        place = None
        if type(path) is str and dir_fd is None:
            if (
                self.needle not in path
                or path in self.elsewhere
                or ((place := known.get(path)) is None and self.is_elsewhere(path))
            ):
                if follow_symlinks:
                    return _stat(path)
                return _stat(path, follow_symlinks=False)
        elif type(path) is int:
            return self.fstat(path)
        if place is None:
            place = locate(path, dir_fd)
        if place is None:
            return _stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        return namespace.status(place)

    def lstat(self, path: Any, *, dir_fd: Optional[int] = None) -> os.stat_result:
        if (
            type(path) is str
            and dir_fd is None
            and (self.needle not in path or path in self.elsewhere or self.is_elsewhere(path))
        ):
            return _lstat(path)
        place = locate(path, dir_fd)
        if place is None:
            return _lstat(path, dir_fd=dir_fd)
        listed = watch.listed
        if listed and place.id in listed:
            listed.discard(place.id)
            return namespace.directory_status(place)
        return namespace.status(place)

    def open(
        self,
        file: Any,
        mode: Any = "r",
        buffering: int = -1,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        newline: Optional[str] = None,
        closefd: bool = True,
        opener: Optional[Callable[[Any, int], int]] = None,
    ) -> Any:
        place = None
        if type(file) is str:
            if (
                self.needle not in file
                or file in self.elsewhere
                or ((place := known.get(file)) is None and self.is_elsewhere(file))
            ):
                return original.open_file(file, mode, buffering, encoding, errors, newline, closefd, opener)
        elif type(file) is int:
            if closefd and file in descriptors.open_files:
                return _open_descriptor(file, file, mode, buffering, encoding, errors, newline)
            if file in paths.directories:
                raise _is_directory(file)
            return original.open_file(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if place is None:
            place = locate(file)
        if place is None:
            return original.open_file(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if type(file) is not str:
            place = place.called(os.fspath(file))
        if opener is not None:
            fd = opener(place.shown, _flags(mode))
            if fd in paths.directories:
                self.close(fd)
                raise _is_directory(place.shown)
            if fd in descriptors.open_files:
                return _open_descriptor(fd, place.shown, mode, buffering, encoding, errors, newline)
            return original.open_file(fd, mode, buffering, encoding, errors, newline)
        return open_state(place, mode, buffering, encoding, errors, newline, closefd)

    def open_code(self, path: str) -> Any:
        place = locate(path)
        return original.open_code(path) if place is None else open_state(place, "rb")

    # Descriptors

    def open_descriptor(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: Optional[int] = None) -> int:
        place = locate(path, dir_fd)
        if place is None:
            return original.open_fd(path, flags, mode, dir_fd=dir_fd)
        return descriptors.open_descriptor(place, flags, mode)

    def close(self, fd: int) -> None:
        if not descriptors.close(fd):
            original.close(fd)

    def fstat(self, fd: int) -> os.stat_result:
        file = descriptors.open_files.get(fd)
        if file is not None:
            return namespace.node_status(file.node)
        place = paths.directories.get(fd)
        return namespace.status(place) if place is not None else original.fstat(fd)

    def fsync(self, fd: Any) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        if descriptors.store(number) is None:
            original.fsync(number)

    def fdatasync(self, fd: Any) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        if descriptors.store(number) is None:
            original.fdatasync(number)

    def dup(self, fd: int) -> int:
        made = original.dup(fd)
        descriptors.duplicate(fd, made)
        return made

    def dup2(self, fd: int, fd2: int, inheritable: bool = True) -> int:
        if fd != fd2 and (fd2 in descriptors.open_files or fd2 in paths.directories):
            descriptors.close(fd2)
        made = _dup2(fd, fd2, inheritable)
        if fd != fd2:
            descriptors.duplicate(fd, made)
        return made

    def fchdir(self, fd: Any) -> None:
        self.chdir(fd if isinstance(fd, int) else fd.fileno())

    # Names

    def chdir(self, path: Any) -> None:
        place = find_directory(path)
        if place is not None:
            namespace.change_directory(place)
        else:
            _chdir(path)
            paths.set_cwd(None)

    def getcwd(self) -> str:
        return original.getcwd() if paths.cwd is None else paths.cwd

    def getcwdb(self) -> bytes:
        return os.fsencode(self.getcwd())

    def listdir(self, path: Any = None) -> Any:
        place = find_directory("." if path is None else path)
        return _listdir(path) if place is None else directories.names(place)

    def scandir(self, path: Any = None) -> Any:
        place = find_directory("." if path is None else path)
        if place is None:
            return _scandir(path)
        return directories.scan(place if path is not None else place.called(None))

    def rename(self, src: Any, dst: Any, *, src_dir_fd: Optional[int] = None, dst_dir_fd: Optional[int] = None) -> None:
        if not _rename_state(src, dst, src_dir_fd, dst_dir_fd):
            _rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def replace(
        self, src: Any, dst: Any, *, src_dir_fd: Optional[int] = None, dst_dir_fd: Optional[int] = None
    ) -> None:
        if not _rename_state(src, dst, src_dir_fd, dst_dir_fd):
            _replace(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def link(self, src: Any, dst: Any, **kwargs: Any) -> None:
        _refuse_link(locate(src, kwargs.get("src_dir_fd")) or locate(dst, kwargs.get("dst_dir_fd")), src, dst)
        _link(src, dst, **kwargs)

    def symlink(self, src: Any, dst: Any, target_is_directory: bool = False, *, dir_fd: Optional[int] = None) -> None:
        _refuse_link(locate(dst, dir_fd), src, dst)
        _symlink(src, dst, target_is_directory, dir_fd=dir_fd)


_chdir = posix.chdir
_dup2 = posix.dup2
_link = posix.link
_listdir = posix.listdir
_rename = posix.rename
_replace = posix.replace
_scandir = posix.scandir
_symlink = posix.symlink

HOOKS = Hooks()


def _aim(needle: str, root: str) -> None:
    HOOKS.needle = needle
    HOOKS.suspect = ("//", "/.", "/" + root.split("/")[1]) if root else ("",)
    HOOKS.elsewhere.clear()


paths.on_needle(_aim)


def find(path: Any, dir_fd: Optional[int] = None) -> Optional[Place]:
    """The place of a path or of an open descriptor."""
    if type(path) is int:
        place = paths.directories.get(path)
        if place is None:
            file = descriptors.open_files.get(path)
            place = None if file is None else file.node.place
        return None if place is None else place.called(path)
    return locate(path, dir_fd)


def find_directory(path: Any) -> Optional[Place]:
    """The place of a path, or of an open descriptor, that has to be a directory's."""
    if type(path) is int and path in descriptors.open_files:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return find(path)


def _is_directory(shown: Any) -> OSError:
    return OSError(errno.EISDIR, os.strerror(errno.EISDIR), shown)


def _flags(mode: Any) -> int:
    parsed = parse_mode(mode)
    if parsed is None:
        return os.O_RDONLY | os.O_CLOEXEC
    access = os.O_RDWR if parsed[1] else os.O_RDONLY if parsed[0] == "r" else os.O_WRONLY
    extra = {
        "r": 0,
        "w": os.O_CREAT | os.O_TRUNC,
        "x": os.O_CREAT | os.O_EXCL,
        "a": os.O_CREAT | os.O_APPEND,
    }
    return access | extra[parsed[0]] | os.O_CLOEXEC


def _open_descriptor(
    fd: int,
    name: Any,
    mode: Any,
    buffering: int,
    encoding: Optional[str],
    errors: Optional[str],
    newline: Optional[str],
) -> Any:
    parsed = parse_mode(mode)
    if parsed is None:
        return original.open_file(fd, mode, buffering, encoding, errors, newline)
    file = descriptors.alone(fd)
    file.view(name, parsed[0], parsed[1])
    return dress(file, parsed, mode, buffering, encoding, errors, newline)


def _rename_state(src: Any, dst: Any, src_dir_fd: Optional[int], dst_dir_fd: Optional[int]) -> bool:
    source, target = locate(src, src_dir_fd), locate(dst, dst_dir_fd)
    if source is None and target is None:
        return False
    if source is None or target is None:
        from asya_shim.changes import crossing

        raise crossing(src, dst)
    namespace.rename(source, target)
    return True


def _refuse_link(place: Optional[Place], src: Any, dst: Any) -> None:
    if place is not None:
        raise OSError(errno.EPERM, "a state mount holds no links", src, None, dst)


def _route(name: str, ours: Callable[..., Any]) -> None:
    """A replacement for `os.{name}`, whose first argument is a path: `ours` gets the place and the rest."""
    real = getattr(posix, name, None)
    if real is None:
        return

    def hook(self: Hooks, path: Any, *args: Any, dir_fd: Optional[int] = None, **kwargs: Any) -> Any:
        place = find(path, dir_fd)
        if place is not None:
            return ours(place, *args, **kwargs)
        if dir_fd is not None:
            kwargs["dir_fd"] = dir_fd
        return real(path, *args, **kwargs)

    hook.__name__ = hook.__qualname__ = name
    hook.__doc__ = real.__doc__
    HOOKS.routes[name] = MethodType(hook, HOOKS)


_ROUTES: Dict[str, Callable[..., Any]] = {
    "access": namespace.access,
    "chmod": namespace.chmod,
    "chown": namespace.chown,
    "fchmod": namespace.chmod,
    "fchown": namespace.chown,
    "getxattr": attributes.get,
    "lchown": namespace.chown,
    "listxattr": attributes.names,
    "mkdir": namespace.make_directory,
    "mkfifo": namespace.refuse_special,
    "mknod": namespace.refuse_special,
    "readlink": namespace.read_link,
    "remove": namespace.unlink,
    "removexattr": attributes.remove,
    "rmdir": namespace.remove_directory,
    "setxattr": attributes.put,
    "statvfs": namespace.statvfs,
    "truncate": namespace.truncate,
    "unlink": namespace.unlink,
    "utime": namespace.utime,
}
for _name, _ours in _ROUTES.items():
    _route(_name, _ours)

_METHODS: Set[str] = {
    "chdir",
    "close",
    "dup",
    "dup2",
    "fchdir",
    "fdatasync",
    "fstat",
    "fsync",
    "getcwd",
    "getcwdb",
    "link",
    "listdir",
    "lstat",
    "rename",
    "replace",
    "scandir",
    "stat",
    "symlink",
}


def replacements() -> Dict[str, Any]:
    """What replaces which function of `os` and `posix`, by name."""
    table: Dict[str, Any] = {name: getattr(HOOKS, name) for name in _METHODS}
    table.update(HOOKS.routes)
    table["open"] = HOOKS.open_descriptor
    return table
