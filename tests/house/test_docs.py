"""The documentation: what is generated is fresh, what there is is in it, and it builds without a warning."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from asya_contract.errors import WIRE_ERRORS
from support.documentation import DOCS, generator, pages
from support.golden import Golden

GENERATED = [
    "reference/resource.md",
    "reference/environment.md",
    "reference/wire.md",
    "reference/metrics.md",
    "reference/errors.md",
    "reference/logs.md",
    "reference/commands.md",
    "reference/chart.md",
    "llms.txt",
]


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    found: dict[str, str] = generator("generate").pages()
    return found


@pytest.mark.parametrize("path", GENERATED)
def test_generated_pages_are_fresh(path: str, made: dict[str, str], request: pytest.FixtureRequest) -> None:
    """`pytest tests/house/test_docs.py --update` writes them anew. What has no words the generator itself refuses."""
    Golden(DOCS, update=request.config.getoption("--update")).check(path, made[path])


def test_every_generated_page_is_compared(made: dict[str, str]) -> None:
    assert sorted(made) == sorted(GENERATED)


def test_what_has_no_words_is_refused() -> None:
    generate, facts = generator("generate"), generator("facts")
    (field,) = facts.fields({"properties": {"speed": {"type": "integer", "maximum": 3}}}, "spec")
    with pytest.raises(generate.Undocumented, match=r"spec\.speed in crds"):
        generate._field_row(field, "spec")
    option = facts.Argument("--fast", "", "")
    with pytest.raises(generate.Undocumented, match="--fast of asya run"):
        generate._argument(option, "asya run")
    node = yaml.compose("operator:\n  # -- A limit.\n  speed: 3\n  size: 4\n")
    values = facts._values(node, "operator:\n  # -- A limit.\n  speed: 3\n  size: 4\n".splitlines(), "")
    assert [(v.path, v.default, v.meaning) for v in values] == [
        ("operator.speed", "3", "A limit."),
        ("operator.size", "4", ""),
    ]


def test_reasons_are_found_in_each_form() -> None:
    source = """
Condition("Ready", "False", "First", "...")
Trouble("Second", "...", True)
reason = "Third" if crashed else "Fourth"
row = {"type": kind, "reason": "Fifth"}
await self._release(body, "Warning", "Sixth", "...")
"""
    found = generator("facts")._reasons_in(ast.parse(source.replace("await ", "")))
    assert sorted(reason for reason, _ in found) == ["Fifth", "First", "Fourth", "Second", "Sixth", "Third"]


def headings(page: str) -> set[str]:
    """The headings of a page, without their backquotes."""
    return {title.strip("` ") for title in re.findall(r"^#{2,4} (.+)$", (DOCS / page).read_text(), re.MULTILINE)}


def test_every_reason_has_its_runbook() -> None:
    reasons = set(generator("facts").reasons())
    written = headings("operations/conditions.md")
    assert reasons - written == set(), "a reason without a heading in docs/operations/conditions.md"
    camel = {title for title in written if re.fullmatch(r"([A-Z][a-z]+){2,}", title)}
    kinds = {"StateReady", "GuardWeak", "ScaledExternally"}
    assert camel - reasons - kinds == set(), "a heading for a reason that there is not"


def test_every_error_has_its_runbook() -> None:
    codes = set(WIRE_ERRORS) | set(generator("facts").runtime_errors())
    written = headings("operations/errors.md")
    assert codes - written == set(), "an error without a heading in docs/operations/errors.md"
    assert {title for title in written if re.fullmatch(r"[a-z]+(_[a-z]+)*", title)} - codes == set()


def sections(page: str) -> list[tuple[str, str, str]]:
    """Of a page: chapter, heading, text of each section."""
    chapter, found = "", []
    for level, title, text in re.findall(
        r"^(#{2,3}) ([^\n]+)\n(.*?)(?=^#{2,3} |\Z)", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL
    ):
        if level == "##":
            chapter = title
        else:
            found.append((chapter, title, text.strip()))
    return found


@pytest.mark.parametrize("page", ["conditions", "errors", "alerts"])
def test_every_runbook_says_what_to_do(page: str) -> None:
    """A meaning alone is no help: a second sentence, or commands. But for what needs no hand."""
    found = sections(f"operations/{page}.md")
    assert len(found) > 15
    well = {"All is well", "When it is deleted"}
    bare = [
        title
        for chapter, title, text in found
        if chapter not in well and "```" not in text and len(re.findall(r"[.:;](?=\s|$)", text)) < 2
    ]
    assert bare == []


def metric_names() -> set[str]:
    """Every name that Prometheus may meet."""
    suffixes = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}
    found = [m for rows in generator("facts").metrics().values() for m in rows]
    return {m.name for m in found} | {m.name + suffix for m in found for suffix in suffixes[m.kind]}


def test_pages_name_metrics_that_exist() -> None:
    known = metric_names()
    for page, text in pages().items():
        named = set(re.findall(r"\basya_(?:proxy|operator|runtime)_[a-z_]+\b", text))
        assert named - known == set(), page


def test_pages_name_variables_that_exist() -> None:
    facts = generator("facts")
    known = {spec.name for rows in facts.environments().values() for spec, _ in rows} | {"ASYA_OPERATOR_CONFIG"}
    for page, text in pages().items():
        named = set(re.findall(r"\b(?:STATE|ASYA)_[A-Z]+(?:_[A-Z]+)*\b", text))
        assert named - known == set(), page


def test_pages_name_fields_that_exist() -> None:
    facts = generator("facts")
    known = {field.path for field in facts.fields(facts.schema(), "")} | {value.path for value in facts.chart_values()}
    known |= {path.removeprefix("spec.") for path in known}
    known |= {prefix for path in known for prefix in _prefixes(path)}
    for page, text in pages().items():
        if page.startswith("reference/"):
            continue
        named = set(
            re.findall(r"`((?:spec|stateProxy|images|certificates|actors|webhook|operator)\.[A-Za-z.\[\]]+)`", text)
        )
        assert named - known == set(), page


def _prefixes(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=DOCS.parent, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "reference" / "resource" / "index.html").exists()
    linked = re.findall(r"\]\(([^)]+)\)", (tmp_path / "llms.txt").read_text())
    assert len(linked) > 25
    assert [path for path in linked if not (tmp_path / path).exists()] == []
    assert list(tmp_path.rglob("*.py")) == []
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link rel=.stylesheet.|source)[^>]*(?:src|href)=.?(https?:[^\"> ]+)", page.read_text()
        )
        assert loaded == [], page


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = (DOCS.parent / "mkdocs.yml").read_text()
    assert re.search(r"^  font: false$", text, re.MULTILINE)
    assert "extra_javascript" not in text
    assert "extra_css" not in text
