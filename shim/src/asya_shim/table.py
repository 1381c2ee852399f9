"""The one table of hooks: module, attribute, and what makes its replacement out of the original.

Rows of modules that are not loaded yet wait for their import. References that other modules took of an
original before are found and replaced too (`rebind`). `uninstall` puts everything back.
"""

from __future__ import annotations

import os
import sys

from asya_shim import audit, late, rebind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Set, Tuple


class Row:
    """`make(original)` stands at `attribute` of `module` from now on; "Class.name" is a class's attribute."""

    __slots__ = ("attribute", "make", "module")

    def __init__(self, module: str, attribute: str, make: Callable[[Any], Any]) -> None:
        self.module = module
        self.attribute = attribute
        self.make = make


def _rows() -> List[Row]:
    from asya_shim import hooks

    def constant(value: Any) -> Callable[[Any], Any]:
        return lambda _original: value

    rows: List[Row] = []
    for name, replacement in hooks.replacements().items():
        rows.append(Row("os", name, constant(replacement)))
        rows.append(Row("posix", name, constant(replacement)))
    for module in ("builtins", "io", "_io"):
        rows.append(Row(module, "open", constant(hooks.HOOKS.open)))
    for module in ("io", "_io"):
        rows.append(Row(module, "open_code", constant(hooks.HOOKS.open_code)))
    for module, attribute, make in late.ROWS:
        rows.append(Row(module, attribute, make))
    return rows


_installed: List[Tuple[Any, str, Any, bool]] = []
_rebound: List[Callable[[], None]] = []
_waiting: Dict[str, List[Row]] = {}
"""Rows to apply when their module is imported, or reloaded."""
_FIRST = ("_io", "builtins", "io", "os", "posix")
"""These are there from the start, and a reload of one takes what another has."""
_replacements: Set[int] = set()
"""The ids of all that stands in a module by now; `_made` keeps it."""
_made: Dict[Tuple[int, Callable[[Any], Any]], Any] = {}
_finder: Optional[late.Finder] = None
_SETS = ("supports_dir_fd", "supports_effective_ids", "supports_fd", "supports_follow_symlinks")
_supports: Dict[str, Any] = {}


def install() -> None:
    """Apply the rows of all loaded modules, let the others wait, rebind, and set the leak alarm."""
    global _finder
    replaced: Dict[int, Tuple[Any, Any]] = {}
    for row in _rows():
        module = sys.modules.get(row.module)
        if row.module not in _FIRST:
            _waiting.setdefault(row.module, []).append(row)
        if module is not None:
            _apply(module, row, replaced)
    for name in late.ADAPTED:
        _waiting.setdefault(name, [])
        if name in sys.modules:
            _adapt(name, replaced)
    for name in _SETS:
        _supports[name] = current = getattr(os, name)
        setattr(os, name, {replaced[id(f)][1] if id(f) in replaced else f for f in current} | set(current))
    _rebound.extend(rebind.rebind(replaced))
    _finder = late.Finder(set(_waiting), _loaded)
    sys.meta_path.insert(0, _finder)
    audit.arm()


def _loaded(name: str) -> None:
    """A module with rows has just been imported."""
    for row in _waiting.get(name, []):
        _apply(sys.modules[name], row, {})
    if name in late.ADAPTED:
        _adapt(name, {})


def _adapt(name: str, replaced: Dict[int, Tuple[Any, Any]]) -> None:
    """Apply the rows of a library's module. A release of it that is built otherwise is left as it is: the guard
    refuses what would have been adapted."""
    from importlib import import_module

    room = import_module(f"asya_shim.adapters.{late.ADAPTED[name]}")
    for attribute, make in room.ROWS[name]:
        try:
            _apply(sys.modules[name], Row(name, attribute, make), replaced)
        except (AttributeError, TypeError):
            continue


def _apply(module: Any, row: Row, replaced: Dict[int, Tuple[Any, Any]]) -> None:
    holder, _, name = row.attribute.rpartition(".")
    target = getattr(module, holder, None) if holder else module
    if target is None or not hasattr(target, name):
        return
    before = vars(target)[name] if name in vars(target) else getattr(target, name)
    if id(before) in _replacements:
        return  # it has outlived a reload
    key = (id(before), row.make)
    if key not in _made:
        _made[key] = row.make(before)
    replacement = _made[key]
    if replacement is None:
        return
    own = name in vars(target)
    setattr(target, name, replacement)
    _replacements.add(id(replacement))
    _installed.append((target, name, before, own))
    if not holder and before is not replacement:
        replaced[id(before)] = (before, replacement)


def uninstall() -> None:
    """Put everything back, last first. The audit hook stays, disarmed: the interpreter keeps those."""
    global _finder
    audit.disarm()
    if _finder is not None and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    _finder = None
    for undo in reversed(_rebound):
        undo()
    _rebound.clear()
    for target, name, before, own in reversed(_installed):
        if own:
            setattr(target, name, before)
        else:
            delattr(target, name)
    _installed.clear()
    _waiting.clear()
    _made.clear()
    _replacements.clear()
    for name, before in _supports.items():
        setattr(os, name, before)
    _supports.clear()
