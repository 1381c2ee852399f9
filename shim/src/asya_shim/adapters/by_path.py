"""What adapters are made of: of a state path a function gets an open file or another function, or is refused."""

from __future__ import annotations

import functools
import os

from asya_shim.layers import below
from asya_shim.paths import Place, locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional, Sequence, Tuple

    Make = Callable[[Any], Any]
    Rows = Tuple[Tuple[str, Make], ...]


def place_of(path: Any) -> Optional[Place]:
    """The place of a path below a mount; None for everything else that a library takes in a path's stead, such as a
    URL, which would be a path below the working directory."""
    if isinstance(path, str):
        return None if "://" in path else locate(path)
    return locate(path) if isinstance(path, os.PathLike) else None


def of_state(position: int, name: str, make: Make) -> Make:
    """A function that is what `make` makes of it for a state path in the argument at `position`, called `name`.

    For other paths it gets its arguments untouched: those of later releases of its library are not known here.
    """

    def make_both(real: Callable[..., Any]) -> Any:
        adapted = make(real)

        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            path = args[position] if len(args) > position else kwargs.get(name)
            return (real if place_of(path) is None else adapted)(*args, **kwargs)

        return call

    return make_both


def by_object(
    position: int,
    name: str,
    mode: str,
    *,
    library: str = "",
    unless: Sequence[str] = (),
    dress: Any = None,
    called: Any = os.fspath,
) -> Make:
    """A function that is done with its file when it returns: it gets the open file in place of the path.

    `position` and `name` are the argument's. With one of the arguments `unless` it is refused, for they mean
    something of paths. `dress(file, path)` is what is passed on, where it is not the file;
    `called(path)` is what the library would open, None where it does so by Python.
    """

    def make(real: Callable[..., Any]) -> Any:
        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            path: Any = args[position] if len(args) > position else kwargs.get(name)
            if place_of(path) is None:
                return real(*args, **kwargs)
            if any(kwargs.get(other) for other in unless):
                raise refused(path, library)
            path = called(path)
            if path is None:
                return real(*args, **kwargs)
            with open(path, mode) as file:
                passed = file if dress is None else dress(file, path)
                if len(args) > position:
                    args = (*args[:position], passed, *args[position + 1 :])
                else:
                    kwargs[name] = passed
                return real(*args, **kwargs)

        return call

    return make


def refused(path: Any, library: str) -> OSError:
    """What a function raises that could not tell why it finds nothing at a state path; logged."""
    from asya_shim import leaks

    return leaks.refused(path, library, f"{library} cannot open a state file by path here")


def each(source: Any) -> Sequence[Any]:
    """Its elements where it is a list of files, itself where it is one."""
    return source if isinstance(source, (list, tuple)) else (source,)


_PATHS = ("filename", "path", "source")
"""What the functions that are refused call it."""


def refusing(library: str, position: int = 0) -> Make:
    """A function that, of a path that it cannot open, would say nothing but "nothing there"."""

    def make(real: Callable[..., Any]) -> Any:
        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            for value in (*args[position : position + 1], *(kwargs[name] for name in _PATHS if name in kwargs)):
                for path in each(value):
                    if place_of(path) is not None:
                        raise refused(path, library)
            return real(*args, **kwargs)

        return call

    return make


class StandIn:
    """Called in place of a class that cannot be subclassed, and like that class otherwise. `module` has it."""

    def __init__(self, module: str, real: Any, call: Callable[..., Any]) -> None:
        self.real = real
        self._call = call
        self.__doc__ = real.__doc__
        self.__module__ = module

    def __reduce__(self) -> str:
        name: str = self.real.__name__
        return name

    def __or__(self, other: Any) -> Any:
        return self.real | other

    def __ror__(self, other: Any) -> Any:
        return other | self.real

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self.real)

    def __subclasscheck__(self, kind: type) -> bool:
        return issubclass(kind, self.real)

    def __mro_entries__(self, bases: Any) -> Tuple[Any, ...]:
        return (self.real,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def by_descriptor(real: Callable[..., Any]) -> Callable[..., Any]:
    """For what maps a file that it reads: the memory that the content lies in has a path as long as it is open."""

    def call(path: Any, *args: Any, **kwargs: Any) -> Any:
        if place_of(path) is None:
            return real(path, *args, **kwargs)
        with open(path, "rb") as file:
            return real(f"/proc/self/fd/{file.fileno()}", *args, **kwargs)

    return call


def drop(file: Any) -> None:
    """Close an open file and store nothing of it."""
    raw = below(file)
    if raw is not None:
        raw.abandon()
    file.close()
