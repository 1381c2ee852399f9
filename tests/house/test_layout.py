"""`operator` is also a module of the standard library; nothing of ours may shadow it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_shadows_the_operator_module():
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "tests" / "operator").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))
