"""The documentation as tests see it: its generator, its pages, and the blocks of code in them."""

import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parents[2] / "docs"


def generator(name: str) -> Any:
    """A module of the generator (`facts`, `generate`), which is no package."""
    if str(DOCS) not in sys.path:
        sys.path.append(str(DOCS))
    return importlib.import_module(name)


def pages() -> dict[str, str]:
    """Every page by its path below docs/."""
    return {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language, its title, its text, the comment `<!-- check: ... -->` above."""

    page: str
    line: int
    language: str
    title: str
    check: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


_BLOCK = re.compile(
    r"^(?:<!-- check: (?P<check>[^>]+) -->\n)?(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]*)\")?\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = (DOCS / page).read_text()
    assert text.count("```") % 2 == 0, f"{page}: a fence without an end"
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        body = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        block = Block(page, line, match["language"], match["title"] or "", (match["check"] or "").strip(), body)
        found.append(block)
    assert len(found) == text.count("```") // 2, f"{page}: a fence that blocks() does not read"
    return found


def section(page: str, title: str) -> list[Block]:
    """The blocks of a page below a heading of the second level."""
    text = (DOCS / page).read_text()
    start = text.index(f"\n## {title}\n")
    line = text.count("\n", 0, start) + 1
    end = text.find("\n## ", start + 1)
    return [block for block in blocks(page) if line < block.line <= text.count("\n", 0, end) + 1]


def matches(wanted: str, output: str) -> bool:
    """Whether `output` is `wanted`, in which an ellipsis stands for anything in its line."""
    pattern = "".join(".*" if part == "…" else re.escape(part) for part in re.split("(…)", wanted.strip()))
    return re.fullmatch(pattern, output.strip()) is not None


def navigation() -> list[str]:
    """The pages that mkdocs.yml leads to, in order."""
    sections = yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text())["nav"]
    return [path for section in sections for entry in next(iter(section.values())) for path in entry.values()]


def all_blocks(*languages: str) -> list[Block]:
    """The blocks of every page of the navigation in one of these languages."""
    return [block for page in navigation() for block in blocks(page) if block.language in languages]
