"""Functions that swallow `OSError` by themselves, made to tell of outages: an outage is never an answer.

They run as they are, with a note taken of every StateUnavailableError that a hook below them raises
(`lookups.watch`); if there was one, it is raised instead of their result. Generators are watched step
by step.
"""

from __future__ import annotations

from types import GeneratorType

from asya_shim.lookups import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, List, Set, Tuple

    from asya_shim.paths import FileId


def strict(function: Callable[..., Any]) -> Any:
    """`function`, raising the first outage that it met and swallowed."""

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = _watched(function, *args, **kwargs)
        if isinstance(result, GeneratorType) or hasattr(result, "__next__"):
            return _steps(result)
        return result

    return _like(function, watched)


def walking(function: Callable[..., Any]) -> Any:
    """`strict` for `os.walk`, which asks of each directory that it has just listed whether that is a link."""

    def watched(*args: Any, **kwargs: Any) -> Any:
        return _walk(_watched(function, *args, **kwargs))

    return _like(function, watched)


def _walk(iterator: Iterator[Any]) -> Iterator[Any]:
    listed: Set[FileId] = set()
    end = object()
    while True:
        outer, watch.listed = watch.listed, listed
        try:
            item = _watched(next, iterator, end)
        finally:
            watch.listed = outer
        if item is end:
            return
        yield item


def _watched(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    outer = watch.outages
    met: List[BaseException] = []
    watch.outages = met
    try:
        result = function(*args, **kwargs)
    finally:
        watch.outages = outer
        if outer is not None:
            outer.extend(met)
    if met:
        raise met[0]
    return result


def _steps(iterator: Iterator[Any]) -> Iterator[Any]:
    end = object()
    while True:
        item = _watched(next, iterator, end)
        if item is end:
            return
        yield item


def _like(function: Any, watched: Any) -> Any:
    """What `functools.wraps` does (its imports cost every Python process in the pod two milliseconds)."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        try:
            setattr(watched, name, getattr(function, name))
        except (AttributeError, TypeError):
            continue  # replaced before us, by any callable object
    watched.__dict__.update(getattr(function, "__dict__", {}))
    watched.__wrapped__ = function
    return watched


def predicate(function: Callable[..., Any]) -> Any:
    """`strict` for functions of one path, called all the time: paths that cannot be ours go straight through."""
    from asya_shim.hooks import HOOKS

    def watched(path: Any) -> Any:
        if type(path) is str and (HOOKS.needle not in path or path in HOOKS.elsewhere or HOOKS.is_elsewhere(path)):
            return function(path)
        return _watched(function, path)

    return _like(function, watched)


ROWS: List[Tuple[str, str, Callable[[Any], Any]]] = []
for _module in ("posixpath", "genericpath"):
    for _name in ("exists", "isdir", "isfile", "islink", "ismount", "lexists"):
        ROWS.append((_module, _name, predicate))
ROWS += [
    ("posixpath", "realpath", strict),
    ("os", "walk", walking),
    ("os", "fwalk", strict),
    ("glob", "glob", strict),
    ("glob", "iglob", strict),
    ("shutil", "rmtree", strict),
    ("shutil", "which", strict),
    ("zipfile", "is_zipfile", strict),
]
for _module in ("pathlib", "pathlib._local"):
    for _name in (
        "exists",
        "is_block_device",
        "is_char_device",
        "is_dir",
        "is_fifo",
        "is_file",
        "is_mount",
        "is_socket",
        "is_symlink",
        "glob",
        "rglob",
        "walk",
        "resolve",
    ):
        ROWS.append((_module, f"Path.{_name}", strict))
