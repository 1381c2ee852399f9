"""The keys of log lines: what any part writes is in the one table, and nothing else is in it."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from asya_contract.logs import ALWAYS, KEYS

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"runtime": "shim/src/asya_runtime", "proxy": "proxy/src/asya_proxy", "operator": "operator/src/asya_operator"}
# What is made by the formatters, and what kopf hangs on its records.
FORMATTED = {*ALWAYS, "actor", "exception", "k8s_ref"}


def keys(tree: ast.AST) -> Iterator[str]:
    """The keys that a module gives to its log lines."""
    extras = [k.value for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords if k.arg == "extra"]
    named = {part.id for extra in extras for part in ast.walk(extra) if isinstance(part, ast.Name)}
    for extra in extras:
        yield from _of_dicts(extra)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if getattr(node.func, "id", "") == "log":
                yield from (keyword.arg for keyword in node.keywords if keyword.arg)
        elif isinstance(node, ast.Assign) and named & {getattr(target, "id", "") for target in node.targets}:
            yield from _of_dicts(node.value)
        elif _says(node) in ("_context", "raised", "told", "whose"):
            yield from _of_dicts(node)


def _says(node: ast.AST) -> str:
    """The name of a function, or of an attribute that is given a value with its type."""
    found: str = getattr(node, "name", "") or getattr(getattr(node, "target", None), "attr", "")
    return found


def _of_dicts(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Dict):
            yield from (str(key.value) for key in part.keys if isinstance(key, ast.Constant))


@cache
def written(room: str) -> frozenset[str]:
    return frozenset({key for path in (ROOT / ROOMS[room]).rglob("*.py") for key in keys(ast.parse(path.read_text()))})


def test_keys_are_found_in_each_form() -> None:
    source = """
where = {"a": 1}
log.info("x", extra={**where, "b": 2})
log("info", "x", c=3, **raised(error))
def _context(self):
    return {"d": 4}
"""
    assert set(keys(ast.parse(source))) == {"a", "b", "c", "d"}


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_part_writes_is_in_the_table(room: str) -> None:
    found = written(room)
    assert len(found) > 10
    assert found - set(KEYS) == set(), "a key without a meaning in asya_contract.logs"


def test_what_is_in_the_table_is_written() -> None:
    assert set(KEYS) - FORMATTED - frozenset().union(*map(written, ROOMS)) == set()


def test_failures_have_the_same_keys_in_all_parts() -> None:
    for room in ROOMS:
        assert {"actor", "cause"} <= written(room) | {"actor"}, room
