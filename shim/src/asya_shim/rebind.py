"""References that modules took of a function before it was replaced: found, replaced, and given back.

Looked at are module globals, class attributes, defaults and closures of functions in loaded modules.
"""

from __future__ import annotations

import sys
from types import FunctionType, MethodType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, List, Tuple

    Replaced = Dict[int, Tuple[Any, Any]]
    """Original and replacement, by the original's id."""

# These hold the originals on purpose.
_OURS = ("asya_shim", "asya_contract")
_WRAPPERS = (staticmethod, classmethod)


def rebind(replaced: Replaced) -> List[Callable[[], None]]:
    """Replace captured references in all loaded modules; how to undo it, in order."""
    undo: List[Callable[[], None]] = []
    for name, module in list(sys.modules.items()):
        if type(module) is ModuleType and not name.startswith(_OURS):
            _module(module, replaced, undo)
    return undo


def _module(module: ModuleType, replaced: Replaced, undo: List[Callable[[], None]]) -> None:
    own = module.__name__
    for name, value in list(vars(module).items()):
        found = replaced.get(id(value))
        if found is not None and found[0] is value:
            _set(module, name, value, found[1], undo)
        elif type(value) is FunctionType:
            if value.__defaults__ or value.__closure__ or value.__kwdefaults__:
                _function(value, replaced, undo)
        elif isinstance(value, type) and value.__module__ == own:
            _class(value, replaced, undo)


def _class(kind: type, replaced: Replaced, undo: List[Callable[[], None]]) -> None:
    for name, value in list(vars(kind).items()):
        inner = value.__func__ if type(value) in _WRAPPERS else value
        found = replaced.get(id(inner))
        if found is not None and found[0] is inner:
            new = found[1]
            try:
                _set(kind, name, value, new if isinstance(new, MethodType) else staticmethod(new), undo)
            except TypeError:
                continue  # a class of the interpreter itself
        elif type(inner) is FunctionType and (inner.__defaults__ or inner.__closure__ or inner.__kwdefaults__):
            _function(inner, replaced, undo)


def _function(function: FunctionType, replaced: Replaced, undo: List[Callable[[], None]]) -> None:
    if str(function.__globals__.get("__name__")).startswith(_OURS):
        return  # a replacement: it holds its original
    defaults = function.__defaults__
    if defaults and not replaced.keys().isdisjoint(map(id, defaults)):
        function.__defaults__ = tuple(_new(value, replaced) for value in defaults)
        undo.append(lambda: setattr(function, "__defaults__", defaults))
    keywords = function.__kwdefaults__
    if keywords and not replaced.keys().isdisjoint(map(id, keywords.values())):
        function.__kwdefaults__ = {name: _new(value, replaced) for name, value in keywords.items()}
        undo.append(lambda: setattr(function, "__kwdefaults__", keywords))
    for cell in function.__closure__ or ():
        for value in _content(cell):
            if id(value) in replaced and replaced[id(value)][0] is value:
                _set(cell, "cell_contents", value, replaced[id(value)][1], undo)


def _content(cell: Any) -> Iterator[Any]:
    try:
        yield cell.cell_contents
    except ValueError:
        return


def _new(value: Any, replaced: Replaced) -> Any:
    found = replaced.get(id(value))
    return found[1] if found is not None and found[0] is value else value


def _set(holder: Any, name: str, before: Any, after: Any, undo: List[Callable[[], None]]) -> None:
    setattr(holder, name, after)
    undo.append(lambda: setattr(holder, name, before))
