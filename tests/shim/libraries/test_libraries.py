"""Libraries below a mount: each works as on a disk or raises, says what works, and is in the table of the docs.

`make test` runs the standard library on every CPython, and the libraries with adapters; `make libraries` runs all,
with both consistencies. `--update` writes the tables anew.
"""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asya_shim import late
from support.state_proxy import INTERPRETERS, ROOT, Proxy, child_environ

PROGRAMS = Path(__file__).parent / "programs"
PAGE = ROOT / "docs" / "usage" / "libraries.md"
SECTIONS = (("standard",), ("arrays", "tables", "images"), ("science", "documents", "stores", "agents"))
CURRENT = f"{sys.version_info.major}.{sys.version_info.minor}"
ADAPTED = [("adapted", module) for module in SECTIONS[1]]
INSTALLED = [("installed", module) for module in SECTIONS[2]]
QUICK = [("cas", python, "standard") for python in INTERPRETERS] + [("cas", *case) for case in ADAPTED]
SLOW = [
    *(("lww", python, "standard") for python in INTERPRETERS),
    *(("lww", *case) for case in ADAPTED),
    *((mode, *case) for case in INSTALLED for mode in ("cas", "lww")),
]
CASES = [*QUICK, *(pytest.param(*case, marks=pytest.mark.soak) for case in SLOW)]
UNLOCKABLE = "a state file cannot be locked; create a lock file with open(path, 'x')"


def python_of(environment: str) -> str:
    """The interpreter of a version, or of a virtual environment that the Makefile builds."""
    if environment in INTERPRETERS:
        return INTERPRETERS[environment]
    python = ROOT / f".venv-{environment}" / "bin" / "python"
    assert python.exists(), f"{python} is missing: run make libraries"
    return str(python)


class Runs:
    """What `programs/run.py` reported, once per case, and what it left behind."""

    def __init__(self, proxies: dict[str, Proxy], directory: Path) -> None:
        self._proxies = proxies
        self._directory = directory
        self.get = functools.cache(self._run)

    def _run(self, consistency: str, environment: str, module: str) -> dict[str, Any]:
        directory = self._directory / f"{consistency}-{environment}-{module}"
        guard = directory / "pod" / "state"
        for name in ("pod", "home", "work", "temporary", "real"):
            (directory / name).mkdir(parents=True)
        guard.write_text("The state is elsewhere.\n")
        guard.chmod(0o444)
        env = child_environ() | self._proxies[consistency].environ("20s")
        env |= {"ASYA_STATE_PROXY_MOUNTS": f"{consistency}:{guard}", "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {"HOME": str(directory / "home"), "TMPDIR": str(directory / "temporary"), "HF_HUB_OFFLINE": "1"}
        state = guard / f"{environment}-{module}"
        command = [python_of(environment), PROGRAMS / "run.py", module, directory / "real", state]
        done = subprocess.run(
            command, env=env, cwd=directory / "work", capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        left = [str(path.relative_to(directory)) for path in sorted(directory.rglob("*")) if not path.is_dir()]
        return report | {"left": left, "guard": guard.read_text(), "root": str(state)}


@pytest.fixture(scope="module")
def runs(proxies: dict[str, Proxy], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(proxies, tmp_path_factory.mktemp("libraries"))


each = pytest.mark.parametrize(("consistency", "environment", "module"), CASES)


@each
def test_works_or_raises(runs: Runs, consistency: str, environment: str, module: str) -> None:
    cells = runs.get(consistency, environment, module)["cells"]
    assert len(cells) > 10
    assert [cell for cell in cells if cell["outcome"] not in ("works", "raises")] == []


@each
def test_what_raises_says_what_works(runs: Runs, consistency: str, environment: str, module: str) -> None:
    report = runs.get(consistency, environment, module)
    for cell in report["cells"]:
        if cell["outcome"] == "works":
            assert cell["logged"] == [], cell
        elif cell["errno"] != 16 and UNLOCKABLE not in cell["text"]:  # a living memory map: EBUSY
            assert len(cell["logged"]) == 1, json.dumps(cell, indent=1)
            (line,) = cell["logged"]
            named = f"opens files by itself, past the file hooks, and cannot open {report['root']}/"
            assert re.match(rf"{named_in_log(cell['library'])} {re.escape(named)}\S+: \w+", line), line


@each
def test_nothing_is_written_anywhere(runs: Runs, consistency: str, environment: str, module: str) -> None:
    """Neither past the hooks to the mount path, nor beside it."""
    report = runs.get(consistency, environment, module)
    assert report["left"] == ["pod/state"]
    assert report["guard"] == "The state is elsewhere.\n"


@each
def test_is_what_the_table_says(runs: Runs, consistency: str, environment: str, module: str) -> None:
    """Of the rows of this run; the whole tables are compared, or written anew, below."""
    rows = table(runs.get(consistency, environment, module))
    text = PAGE.read_text()
    assert [row for row in rows if row not in text] == [], "run pytest --update and review the table"


def named_in_log(library: str) -> str:
    """Who opens files, where the row's library leaves that to another one."""
    others = {"cv2 (OpenCV)": "cv2", "diskcache": "sqlite3", "LangGraph": "sqlite3", "subprocess": r"the program \w+"}
    return others.get(library, library)


def table(report: dict[str, Any]) -> list[str]:
    """Lines of the table, one for each row that was run."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in report["cells"]:
        row = rows.setdefault((cell["library"], cell["what"]), {"instead": cell["instead"]})
        row[cell["by"], cell["how"]] = "yes" if cell["outcome"] == "works" else "**raises**"
    lines = []
    for (library, what), row in rows.items():
        raises = "**raises**" in row.values()
        assert bool(row["instead"]) == raises, f"{library}, {what}: `instead` belongs to rows that raise"
        version = report["versions"].get(library)
        named = library if version is None else f"{library} {series(version)}"
        cells = [row.get((by, how), "–") for by in ("path", "object") for how in ("read", "write")]
        lines.append("| " + " | ".join([named, what.replace("_", r"\_"), *cells, row["instead"]]) + " |")
    return lines


def series(version: str) -> str:
    """What of a version stays the same for long."""
    major, minor, *_ = version.split(".")
    return f"0.{minor}" if major == "0" else major


HEAD = ["| Library | What | Path: read | Path: write | File object: read | File object: write | Instead |"]
HEAD += ["|---|---|---|---|---|---|---|"]


def section(modules: tuple[str, ...], text: str) -> re.Match[str]:
    start = f"<!-- made by tests/shim/libraries: {' '.join(modules)} -->\n"
    found = re.search(rf"(?<={re.escape(start)}).*?(?=<!-- end -->)", text, re.DOTALL)
    assert found is not None, f"{PAGE} has no {start}"
    return found


@pytest.mark.parametrize(
    "modules", [*SECTIONS[:2], pytest.param(SECTIONS[2], marks=pytest.mark.soak)], ids=lambda modules: modules[0]
)
def test_the_tables_are_what_was_run(modules: tuple[str, ...], runs: Runs, request: pytest.FixtureRequest) -> None:
    environments = dict(map(reversed, ADAPTED + INSTALLED)) | {"standard": CURRENT}  # type: ignore[arg-type]
    rows = [row for module in modules for row in table(runs.get("cas", environments[module], module))]
    assert len(rows) == len(set(rows))
    wanted = "\n".join([*HEAD, *sorted(rows, key=str.lower)]) + "\n"
    text = PAGE.read_text()
    if request.config.getoption("--update"):
        found = section(modules, text)
        text = text[: found.start()] + wanted + text[found.end() :]
        PAGE.write_text(text)
    assert section(modules, text)[0] == wanted, "run pytest --update and review the table"


def test_each_adapted_library_is_in_a_table() -> None:
    text = PAGE.read_text().lower()
    for library in {name.partition(".")[0] for name in late.ADAPTED}:
        assert f"\n| {library}" in text, library
