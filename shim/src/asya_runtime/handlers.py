"""Finding the handler: `module.function`, `package.module.function` or `module.Class.method`.

A class is built once, without arguments. What cannot be found is told with what there is instead.
"""

import difflib
import functools
import importlib
import inspect
import os
import sys
import types
from typing import Any, Callable, List, Tuple

Handler = Callable[[Any], Any]


class HandlerError(Exception):
    """The handler cannot be had. One line: the module, the attribute, what is there, what to do."""


def load(name: str) -> Handler:
    """Import the handler that ASYA_HANDLER names and build its class if it has one.

    Raises HandlerError; what the user's module or class raised is its `__cause__`.
    """
    parts = name.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise HandlerError(
            f"ASYA_HANDLER={name!r}: expected module.function or module.Class.method, such as agent.process"
        )
    module, rest = _import(name, parts)
    found: Any = module
    owner = module.__name__
    for position, part in enumerate(rest):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise HandlerError(_missing(name, owner, part, found)) from None
        owner = f"{owner}.{part}"
        if isinstance(found, type) and position < len(rest) - 1:
            found = _build(name, found)
    if isinstance(found, type):
        raise HandlerError(
            f"ASYA_HANDLER={name!r}: {owner} is a class; name one of its methods: {_there(found, owner)}"
        )
    if not callable(found):
        raise HandlerError(f"ASYA_HANDLER={name!r}: {owner} is of type {type(found).__name__}, not a function")
    _takes_a_payload(name, owner, found)
    return found  # type: ignore[no-any-return]


def _import(name: str, parts: List[str]) -> Tuple[types.ModuleType, List[str]]:
    """Import the longest part of the name that is a module; `(module, the names below it)`."""
    for end in range(len(parts) - 1, 0, -1):
        path = ".".join(parts[:end])
        try:
            return importlib.import_module(path), parts[end:]
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if path == missing or path.startswith(missing + "."):
                continue
            raise HandlerError(_failed(name, path, error)) from error
        except Exception as error:
            raise HandlerError(_failed(name, path, error)) from error
        except SystemExit as error:
            raise HandlerError(_failed(name, path, error)) from error
    raise HandlerError(
        f"ASYA_HANDLER={name!r}: there is no module {parts[0]!r} in {os.getcwd()} ({_modules()}), "
        "nor elsewhere on sys.path"
    )


def _takes_a_payload(name: str, owner: str, handler: Handler) -> None:
    if hasattr(handler, "__signature__"):
        return  # what a decorator says of it, which need not be so
    try:
        signature = inspect.signature(handler, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # of code in C nobody knows it
    try:
        signature.bind(None)
    except TypeError as error:
        raise HandlerError(
            f"ASYA_HANDLER={name!r}: {owner}{signature} is called with one argument, the payload: {error}"
        ) from None


def _failed(name: str, path: str, error: BaseException) -> str:
    return f"ASYA_HANDLER={name!r}: importing module {path!r} failed: {type(error).__name__}: {error}"


def _build(name: str, kind: type) -> Any:
    try:
        return kind()
    except Exception as error:
        raise HandlerError(
            f"ASYA_HANDLER={name!r}: building {kind.__module__}.{kind.__qualname__}() failed: "
            f"{type(error).__name__}: {error}"
        ) from error


def _missing(name: str, owner: str, part: str, place: Any) -> str:
    near = difflib.get_close_matches(part, _public(place), n=1)
    hint = f"did you mean {near[0]}?" if near else f"there is {_there(place, owner)}"
    where = getattr(place, "__file__", None)
    return f"ASYA_HANDLER={name!r}: {owner}{f' ({where})' if where else ''} has no {part!r}; {hint}"


def _public(place: Any) -> List[str]:
    names = []
    for name in dir(place):
        value = getattr(place, name, None)
        own = not inspect.ismodule(place) or getattr(value, "__module__", None) == place.__name__
        if not name.startswith("_") and callable(value) and own:
            names.append(name)
    return names


def _there(place: Any, owner: str) -> str:
    return ", ".join(_public(place)[:20]) or f"nothing that can be called in {owner}"


def _modules() -> str:
    try:
        names = sorted(name[:-3] for name in os.listdir(sys.path[0] or ".") if name.endswith(".py"))
    except OSError:
        names = []
    return "modules there: " + (", ".join(names[:20]) or "none")


def is_async(handler: Handler) -> bool:
    """Whether calling the handler gives something to await or an async generator."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    for candidate in (handler, getattr(handler, "__call__", None)):  # noqa: B004
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            return True
    return False
