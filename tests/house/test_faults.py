"""Every test that the table of faults names is there, and every fault has a test or the reason why not."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = [line for line in (ROOT / "docs" / "faults.md").read_text().splitlines() if re.match(r"\| \d+\. ", line)]


@cache
def functions(path: Path) -> frozenset[str]:
    """The names of a file's test functions, also those in classes."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = (node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))
    return frozenset(name for name in found if name.startswith("test_"))


@cache
def cases(path: Path) -> frozenset[str]:
    """What can be keys of its parametrized cases: the file's own, and those of the support modules it imports."""
    sources = [path.read_text()]
    for module in re.findall(r"^from support\.(\w+) import", sources[0], re.MULTILINE):
        sources.append((ROOT / "tests" / "support" / f"{module}.py").read_text())
    return frozenset(key for source in sources for key in re.findall(r'^    "([\w-]+)": ', source, re.MULTILINE))


def test_no_fault_is_missing():
    assert [int(row.split()[1].rstrip(".")) for row in ROWS] == list(range(1, 27))
    for row in ROWS:
        _, _, happens, shown, _ = row.split("|")
        assert happens.strip(), row
        assert "::" in shown or "No test: " in shown, row


def test_every_named_test_exists():
    named = {name for row in ROWS for name in re.findall(r"`([\w/]+\.py::[^`]+)`", row)}
    assert len(named) > 50
    missing = []
    for name in sorted(named):
        path, _, test = name.partition("::")
        test, _, case = test.rstrip("]").partition("[")
        file = ROOT / path
        if not file.exists() or test not in functions(file) or (case and case not in cases(file)):
            missing.append(name)
    assert missing == []
