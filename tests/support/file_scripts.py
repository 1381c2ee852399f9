"""Scripts of file operations for `worlds`: each operation on every kind of thing that a name may stand for."""

from __future__ import annotations

from collections.abc import Iterator

from support.worlds import FLAGS, MODES, Operation, Script

# What there is at "p" before an operation; handles of slot 9 stay open.
SITUATIONS: dict[str, Script] = {
    "missing": [],
    "file": [["put", "p", "0123456789"]],
    "empty": [["put", "p", ""]],
    "directory": [["mkdir", "p"]],
    "full": [["mkdir", "p"], ["put", "p/x", "x"]],
    "seen missing": [["look", "p"]],
    "deleted": [["put", "p", "old"], ["unlink", "p"]],
    "open for reading": [["put", "p", "0123456789"], ["open", 9, "p", "rb"], ["read", 9, 3]],
    "written": [["open", 9, "p", "wb"], ["write", 9, "new"]],
    "flushed": [["open", 9, "p", "wb"], ["write", 9, "new"], ["flush", 9]],
    "rewritten": [["put", "p", "old"], ["open", 9, "p", "r+b"], ["write", 9, "NEW!"], ["flush", 9]],
    "appended": [["put", "p", "old"], ["open", 9, "p", "ab"], ["write", 9, "more"], ["flush", 9]],
    "appended new": [["open", 9, "p", "a"], ["write", 9, "more"], ["flush", 9]],
    "created": [["open", 9, "p", "x"], ["write", 9, "mine"], ["flush", 9]],
    "synced": [["open", 9, "p", "w"], ["write", 9, "safe"], ["fsync", 9], ["write", 9, "more"], ["flush", 9]],
    "descriptor": [["os_open", 9, "p", "RDWR CREAT"], ["os_write", 9, "by descriptor"]],
    "unlinked": [["put", "p", "old"], ["open", 9, "p", "r+b"], ["unlink", "p"]],
    "moved away": [["open", 9, "p", "w"], ["write", 9, "x"], ["flush", 9], ["rename", "p", "away"]],
    "moved here": [["put", "q0", "q"], ["rename", "q0", "p"]],
    "below a file": [],
    "flushed below": [["mkdir", "p"], ["open", 9, "p/x", "w"], ["write", 9, "x"], ["flush", 9]],
}

_FLAGS = (
    *FLAGS,
    "RDWR TRUNC APPEND CREAT",
    "RDWR CREAT EXCL APPEND",
    "RDONLY NOFOLLOW",
)
_USE: Script = [
    ["tell", 0],
    ["read", 0, 2],
    ["write", 0, "abc"],
    ["flush", 0],
    ["get", "P"],
    ["seek", 0, 1],
    ["read", 0],
    ["truncate", 0, 2],
    ["write", 0, "zz"],
    ["tell", 0],
    ["fstat", 0],
    ["is_same", 0, "P"],
    ["stat", "P"],
    ["write_below", 0, "below"],
    ["get", "P"],
    ["close", 0],
]
_USE_DESCRIPTOR: Script = [
    ["os_read", 0, 2],
    ["os_write", 0, "abc"],
    ["get", "P"],
    ["os_lseek", 0, 1, 0],
    ["os_readv", 0, 2, 1],
    ["os_writev", 0, "vw", "xyz"],
    ["os_pread", 0, 3, 1],
    ["os_pwrite", 0, "pw", 20],
    ["os_fstat", 0],
    ["os_ftruncate", 0, 5],
    ["stat", "P"],
    ["os_dup", 0, 1],
    ["os_close", 0],
    ["os_write", 1, "dup"],
    ["os_fsync", 1],
    ["os_listdir", 1],
    ["os_scandir", 1],
    ["os_fchdir", 1],
    ["os_fdopen", 1, 1, "r+"],
    ["read", 1],
    ["close", 1],
]

# Operations on one name.
ON_ONE: dict[str, Script] = {
    **{f"open {mode}": [["open", 0, "P", mode], *_USE] for mode in MODES},
    **{
        f"open {mode} unbuffered": [["open", 0, "P", mode, 0], *_USE] for mode in ("rb", "wb", "xb", "ab", "r+b", "a+b")
    },
    **{f"os.open {flags}": [["os_open", 0, "P", flags, 0o640], *_USE_DESCRIPTOR] for flags in _FLAGS},
    "look": [["look", "P"], ["getsize", "P"], ["stat", "P"], ["lstat", "P"], ["times", "P"], ["realpath", "P"]],
    "look bytes": [["stat", "b:P"], ["lstat", "p:P"], ["get", "b:P"], ["get", "p:P"], ["scandir", "b:P"]],
    "list": [["listdir", "P"], ["scandir", "P"], ["iterdir", "P"], ["walk", "P"], ["walk", "P", False], ["fwalk", "P"]],
    "glob": [
        ["glob", "P"],
        ["glob", "P*"],
        ["glob", "P/*"],
        ["glob", "**/x"],
        ["rglob", "P", "*"],
        ["rglob", ".", "x"],
    ],
    "mkdir": [["mkdir", "P"], ["mkdir", "P"], ["stat", "P"]],
    "makedirs": [["makedirs", "P/y/z"], ["makedirs", "P/y/z"], ["makedirs", "P/y/z", True], ["walk", "."]],
    "Path.mkdir": [
        ["path_mkdir", "P", False, True],
        ["path_mkdir", "P/y", True, True],
        ["path_mkdir", "P", False, False],
    ],
    "rmdir": [["rmdir", "P"], ["look", "P"], ["rmdir", "P"]],
    "unlink": [["unlink", "P"], ["look", "P"], ["unlink", "P"]],
    "Path.unlink": [["path_unlink", "P", True], ["path_unlink", "P", False]],
    "truncate": [
        ["truncate_path", "P", 4],
        ["get", "P"],
        ["truncate_path", "P", 6],
        ["get", "P"],
        ["truncate_path", "P", -1],
    ],
    "utime": [["utime", "P", 1000], ["times", "P"], ["utime", "P", 2000], ["times", "P"], ["get", "P"]],
    "chmod": [["chmod", "P", 0o600], ["stat", "P"], ["add", "P", "x"], ["stat", "P"]],
    "chdir": [
        ["chdir", "P"],
        ["here", "r:x"],
        ["put", "r:new", "n"],
        ["get", "r:new"],
        ["stat", "r:."],
        ["chdir", "."],
    ],
    "put": [["put", "P", "put"], ["get", "P"], ["put", "P", ""], ["get", "P"]],
    "add": [["add", "P", "added"], ["get", "P"], ["add", "P", "again"], ["get", "P"]],
    "touch": [["touch", "P"], ["look", "P"], ["touch", "P"], ["touch", "P", False]],
    "put atomically": [["put_atomically", "P", "whole"], ["get", "P"], ["put_atomically", "P", "again"]],
    "temporary": [["temporary", "P"], ["listdir", "."]],
    "rmtree": [["rmtree", "P"], ["look", "P"], ["rmtree", "P"], ["rmtree", "P", True]],
    "readlink": [["readlink", "P"], ["statvfs", "P"], ["samefile", "P", "P"]],
    "xattr": [["setxattr", "P", "k", "v"], ["getxattr", "P", "k"], ["getxattr", "P", "no"], ["removexattr", "P", "k"]],
    "at": [
        ["os_open", 0, ".", "RDONLY DIRECTORY"],
        ["at", 0, "stat", "P"],
        ["at", 0, "open", "P", 0],
        ["at", 0, "access", "P", 4],
        ["at", 0, "mkdir", "P"],
        ["at", 0, "rmdir", "P"],
        ["at", 0, "unlink", "P"],
        ["os_listdir", 0],
    ],
    "slash": [["stat", "P/"], ["listdir", "P/"], ["get", "P/"], ["look", "P/"], ["unlink", "P/"], ["rmdir", "P/"]],
    "dot": [["stat", "P/."], ["listdir", "P/."], ["rmdir", "P/."], ["unlink", "P/."]],
    "below": [
        ["stat", "P/y"],
        ["get", "P/y"],
        ["mkdir", "P/y"],
        ["put", "P/y", "y"],
        ["unlink", "P/y"],
        ["rename", "P/y", "z"],
    ],
    "twice": [["get", "P"], ["put", "P", "1"], ["get", "P"], ["put", "P", "22"], ["unlink", "P"], ["put", "P", "333"]],
}

_PROBES: Script = [
    ["look", "P"],
    ["stat", "P"],
    ["listdir", "."],
    ["get", "P"],
    ["read", 9],
    ["tell", 9],
    ["write", 9, "!"],
]

# Operations from one name to another.
ON_TWO = ("rename", "replace", "copyfile", "copy", "copy2", "move", "copytree", "samefile")
_SOURCES = (
    "missing",
    "file",
    "directory",
    "full",
    "written",
    "flushed",
    "appended",
    "open for reading",
    "descriptor",
    "below a file",
    "flushed below",
)
_TARGETS = (
    "missing",
    "file",
    "directory",
    "full",
    "flushed",
    "rewritten",
    "appended",
    "open for reading",
    "below a file",
)


def _named(operation: Operation, name: str, slot: int = 9) -> Operation:
    """`operation` on `name` where it says P or p."""
    out: list[object] = [operation[0]]
    for argument in operation[1:]:
        if isinstance(argument, str) and operation[0] not in ("write", "os_write"):
            for letter in "Pp":
                if argument in (letter, f"b:{letter}", f"p:{letter}", f"r:{letter}") or argument.startswith(
                    (f"{letter}/", f"{letter}*")
                ):
                    head, _, rest = argument.rpartition(letter) if "/" not in argument else ("", "", argument[1:])
                    argument = head + name + rest
                    break
        out.append(slot if argument == 9 and type(argument) is int else argument)
    return out


def _situation(kind: str, name: str, slot: int = 9) -> tuple[list[Operation], str]:
    """The script that makes it, and the name to use."""
    if kind == "below a file":
        return [["put", f"{name}0", "a file"]], f"{name}0/{name}"
    return [_named(operation, name, slot) for operation in SITUATIONS[kind]], name


def on_one() -> Iterator[tuple[str, str, list[Operation]]]:
    """Every operation on one name, in every situation: `(operation, situation, script)`."""
    for title, operations in ON_ONE.items():
        for kind in SITUATIONS:
            script, name = _situation(kind, "p")
            script += [_named(operation, name) for operation in [*operations, *_PROBES]]
            yield title, kind, script


def on_two() -> Iterator[tuple[str, str, list[Operation]]]:
    """Every operation from one name to another, in every pair of situations, and onto itself."""
    for title in ON_TWO:
        for source in _SOURCES:
            for target in (*_TARGETS, "itself", "inside"):
                script, name = _situation(source, "p")
                if target == "itself":
                    other = name
                elif target == "inside":
                    other = f"{name}/in"
                else:
                    more, other = _situation(target, "q", 8)
                    script += more
                script += [
                    [title, name, other],
                    *(["look", n] for n in (name, other)),
                    ["walk", "."],
                    ["get", name],
                    ["get", other],
                    ["write", 9, "!"],
                    ["flush", 9],
                    ["get", name],
                    ["get", other],
                    ["write", 8, "?"],
                    ["read", 9, 3],
                    ["read", 8, 3],
                ]
                yield title, f"{source} to {target}", script


# What once was otherwise than on a disk.
SEEDS: dict[str, Script] = {
    "x unbuffered": [["open", 0, "a", "xb", 0], ["write", 0, "new"], ["close", 0], ["open", 0, "a", "xb", 0]],
    "fdopen with another mode": [
        ["put", "a", "0123456789"],
        ["os_open", 0, "a", "RDONLY"],
        ["os_fdopen", 0, 0, "r+"],
        ["read", 0, 3],
        ["truncate", 0, 1],
        ["os_open", 1, "a", "WRONLY"],
        ["os_fdopen", 1, 1, "r+b"],
        ["read", 1],
        ["os_open", 2, "a", "RDWR"],
        ["os_write", 2, "AB"],
        ["os_fdopen", 2, 2, "rb"],
        ["write", 2, "no"],
        ["close", 2],
        ["get", "a"],
        ["os_open", 3, "a", "RDWR"],
        ["os_fdopen", 3, 3, "a"],
        ["tell", 3],
        ["write", 3, "end"],
    ],
    "a descriptor beside a handle that appends": [
        ["put", "a", "old"],
        ["open", 0, "a", "ab"],
        ["write", 0, "more"],
        ["flush", 0],
        ["os_open", 1, "a", "WRONLY"],
        ["os_write", 1, "new"],
        ["get", "a"],
    ],
    "a reader beside a handle that appends": [
        ["put", "a", "old"],
        ["open", 0, "a", "ab"],
        ["write", 0, "more"],
        ["fsync", 0],
        ["get", "a"],
        ["write", 0, "!"],
        ["flush", 0],
        ["get", "a"],
    ],
    "permissions of truncating and appending opens": [
        ["os_open", 0, "a", "RDWR CREAT TRUNC", 0o640],
        ["os_open", 1, "b", "RDWR CREAT APPEND", 0o600],
        ["stat", "a"],
        ["stat", "b"],
    ],
    "append beside other flags": [
        ["os_open", 0, "a", "RDWR CREAT EXCL APPEND"],
        ["os_write", 0, "one"],
        ["os_pwrite", 0, "two", 0],
        ["os_open", 1, "a", "RDWR TRUNC APPEND"],
        ["os_pwrite", 1, "three", 9],
        ["os_lseek", 1, 0, 0],
        ["os_write", 1, "four"],
    ],
    "created for reading only": [["os_open", 0, "a", "RDONLY CREAT"], ["os_write", 0, "no"], ["get", "a"]],
    "below a file that is not stored yet": [
        ["open", 0, "a", "w"],
        ["stat", "a/x"],
        ["get", "a/x"],
        ["listdir", "a/"],
        ["mkdir", "a/x"],
        ["makedirs", "a/y/z"],
        ["unlink", "a/x"],
        ["rmdir", "a/x"],
        ["open", 1, "a/x", "a"],
        ["os_open", 1, "a/x", "WRONLY APPEND"],
        ["open", 1, "a/.", "r"],
        ["os_open", 0, "a", "RDONLY DIRECTORY"],
        ["os_open", 0, "a/x/", "RDONLY"],
        ["setxattr", "a/x", "k", "v"],
        ["getxattr", "a/x", "k"],
        ["replace", "d", "a/x"],
    ],
    "a directory over a file that is not stored yet": [["mkdir", "d"], ["open", 0, "a", "w"], ["rename", "d", "a"]],
    "over a directory of files that are not stored yet": [
        ["put", "a", "x"],
        ["mkdir", "d"],
        ["mkdir", "e"],
        ["open", 0, "d/x", "w"],
        ["rename", "a", "d"],
        ["rename", "e", "d"],
    ],
    "touched after it was deleted": [
        ["put", "a", "x"],
        ["unlink", "a"],
        ["utime", "a", 1000],
        ["touch", "a"],
        ["stat", "a"],
    ],
    "errors of a path name it as text": [["stat", "p:no"], ["lstat", "p:no"], ["iterdir", "p:no"], ["scandir", "p:no"]],
    "truncated to less than nothing": [["truncate_path", "no", -1], ["put", "a", "x"], ["truncate_path", "a", -1]],
    "both names of a failed rename": [
        ["rename", "no", "b"],
        ["put", "a", "x"],
        ["rename", "a/x", "b"],
        ["rename", "a", "a/x"],
    ],
    "names that end with a slash or a dot": [
        ["put", "a", "x"],
        ["mkdir", "d"],
        ["rename", "a", "a/"],
        ["rename", "a", "b/"],
        ["rename", "no", "a/"],
        ["rename", "d", "e/"],
        ["unlink", "e/"],
        ["unlink", "a/"],
        ["add", "a/.", "x"],
        ["mkdir", "a/."],
        ["mkdir", "e/."],
        ["rmdir", "e/."],
        ["os_open", 0, "n/", "RDWR CREAT"],
        ["os_open", 0, "a/x/", "RDWR CREAT"],
        ["os_open", 0, "e/.", "RDWR CREAT EXCL"],
        ["utime", "a/.", 1000],
        ["open", 1, "e/.", "x"],
        ["open", 1, "f", "w"],
        ["utime", "f/", 1000],
    ],
    "descriptors of a renamed directory": [
        ["makedirs", "d/e"],
        ["put", "d/e/a", "x"],
        ["os_open", 0, "d", "RDONLY"],
        ["os_open", 1, "d/e", "RDONLY DIRECTORY"],
        ["rename", "d", "f"],
        ["os_listdir", 0],
        ["os_scandir", 1],
        ["at", 1, "stat", "a"],
        ["stay_while_renamed", "f/e", "f", "g"],
    ],
    "the descriptor of a file without a name": [
        ["put", "a", "0123456789"],
        ["os_open", 0, "a", "RDWR"],
        ["unlink", "a"],
        ["os_listdir", 0],
        ["os_scandir", 0],
        ["os_fchdir", 0],
        ["os_truncate", 0, 4],
        ["os_pread", 0, 9, 0],
    ],
    "up over its own directory": [["mkdir", "d"], ["put", "d/a", "x"], ["rename", "d/a", "d"]],
    "file objects of duplicates": [
        ["os_open", 0, "a", "RDWR CREAT"],
        ["os_dup", 0, 1],
        ["os_dup", 0, 2],
        ["os_fdopen", 0, 0, "w"],
        ["os_fdopen", 1, 1, "r+b"],
        ["write", 0, "one"],
        ["close", 0],
        ["write", 1, "two"],
        ["flush", 1],
        ["get", "a"],
        ["close", 1],
        ["os_write", 2, "three"],
        ["get", "a"],
    ],
    "links of an unlinked file": [["put", "a", "x"], ["os_open", 0, "a", "RDONLY"], ["unlink", "a"], ["os_fstat", 0]],
}
