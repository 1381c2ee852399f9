"""Nothing leaks: what is at the mount path in the file system stays as it was, and nobody writes outside its directory.

The guard is a read-only file or a directory at the mount path, as in a pod; these tests run as root where others do
not, so it would not refuse a write. The programs are those of the other suites.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from asya_contract.env import Mount
from support.file_scripts import SEEDS, Operation, on_one, on_two
from support.state_proxy import INTERPRETERS, PROGRAMS, Proxy, child_environ
from support.worlds import Worlds

GUARD = "the state is elsewhere\n"


@pytest.fixture(params=["file", "directory"])
def guard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Checked behind the test."""
    path = tmp_path / "mounted"
    if request.param == "file":
        path.write_text(GUARD)
        path.chmod(0o444)
    else:
        path.mkdir(0o555)
    before = path.stat()
    yield path
    after = path.stat()
    for name in ("st_ino", "st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_nlink"):
        assert getattr(after, name) == getattr(before, name), name
    assert (path.read_text() == GUARD) if request.param == "file" else not list(path.iterdir())


def environ(proxy: Proxy, guard: Path) -> dict[str, str]:
    mount = Mount(proxy.mount.name, str(guard))
    more = {"ASYA_STATE_PROXY_MOUNTS": str(mount), "PYTHONDONTWRITEBYTECODE": "1"}
    return child_environ() | proxy.environ() | more


def scripts(share: int) -> list[list[Operation]]:
    return [*(list(script) for script in SEEDS.values()), *(s[2] for s in [*on_one(), *on_two()][::share])]


def watched(worlds_in: Path, report: Path) -> list[str]:
    return [str(PROGRAMS / "watched.py"), str(report), str(worlds_in)]


def check(python: str, proxy: Proxy, guard: Path, tmp_path: Path, share: int) -> None:
    own, report = tmp_path / "own", tmp_path / "report"
    own.mkdir()
    with Worlds(
        python, proxy, own, environ=environ(proxy, guard), below=str(guard), before=watched(own, report)
    ) as worlds:
        for script in scripts(share):
            worlds.run(script, as_turn=False)
    assert json.loads(report.read_text()) == []


@pytest.mark.parametrize("python", INTERPRETERS)
def test_scripts(python: str, lww_proxy: Proxy, guard: Path, tmp_path: Path) -> None:
    check(python, lww_proxy, guard, tmp_path, share=100)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("python", INTERPRETERS)
def test_every_script(python: str, lww_proxy: Proxy, guard: Path, tmp_path: Path) -> None:
    check(python, lww_proxy, guard, tmp_path, share=1)


@pytest.mark.parametrize("python", INTERPRETERS)
def test_programs(python: str, lww_proxy: Proxy, guard: Path, tmp_path: Path) -> None:
    own, report = tmp_path / "own", tmp_path / "report"
    own.mkdir()
    done = subprocess.run(
        [
            INTERPRETERS[python],
            *watched(own, report),
            str(PROGRAMS / "differential.py"),
            str(own / "real"),
            f"{guard}/{python}-{guard.stat().st_ino}",
        ],
        env=environ(lww_proxy, guard),
        cwd=own,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, worlds in json.loads(done.stdout).items():
        assert worlds["state"] == worlds["real"], name
    assert json.loads(report.read_text()) == []


@pytest.mark.parametrize(
    "leak",
    [
        "posix.open(outside, os.O_WRONLY | os.O_CREAT)",
        "open(outside, 'a').close()",
        "os.mkdir(outside)",
        "os.rename(inside, outside)",
        "os.symlink('x', outside)",
    ],
)
def test_a_leak_would_be_seen(leak: str, tmp_path: Path) -> None:
    own, report, program = tmp_path / "own", tmp_path / "report", tmp_path / "program.py"
    own.mkdir()
    lines = [
        "import os, posix",
        f"inside, outside = {str(own / 'f')!r}, {str(tmp_path / 'leak')!r}",
        "open(inside, 'w').close()",
        leak,
    ]
    program.write_text("\n".join(lines))
    subprocess.run(
        [INTERPRETERS[next(iter(INTERPRETERS))], *watched(own, report), str(program)], env=child_environ(), check=True
    )
    assert [path for _, path in json.loads(report.read_text())] == [str(tmp_path / "leak")]
