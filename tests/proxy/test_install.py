"""What `install` leaves in the handler's container."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asya_proxy.__main__ import main
from asya_proxy.install import InstallError, install


def tree(directory: Path) -> dict[str, tuple[int, int]]:
    """Name to mode and inode."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mode & 0o777, path.stat().st_ino)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_everything_is_there_readable_and_standard_library_only(tmp_path: Path) -> None:
    target = tmp_path / "asya"
    written, equal = install(target)
    files = tree(target)
    assert (written, equal) == (len(files), 0)
    assert {"run.py", "lib/sitecustomize.py", "lib/asya_contract/wire.py", "lib/asya_shim/__init__.py"} <= set(files)
    assert {mode for mode, _ in files.values()} == {0o644}
    assert {path.name for path in (target / "lib").iterdir()} == {
        "asya_contract",
        "asya_runtime",
        "asya_shim",
        "sitecustomize.py",
    }
    assert all(path.stat().st_mode & 0o755 == 0o755 for path in target.rglob("*") if path.is_dir())
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(target / 'lib')!r}); import asya_contract.env",
        ],
        check=False,
    )
    assert done.returncode == 0


def test_a_second_time_changes_nothing_and_mends_what_differs(tmp_path: Path) -> None:
    install(tmp_path)
    before = tree(tmp_path)
    assert install(tmp_path) == (0, len(before))
    assert tree(tmp_path) == before
    (tmp_path / "lib/asya_contract/wire.py").write_text("half")
    (tmp_path / "run.py").chmod(0o600)
    assert install(tmp_path) == (1, len(before) - 1)
    after = tree(tmp_path)
    assert (tmp_path / "lib/asya_contract/wire.py").read_text() != "half"
    assert after["lib/asya_contract/wire.py"][1] != before["lib/asya_contract/wire.py"][1]
    assert after["run.py"] == (0o644, before["run.py"][1])


def test_a_reader_keeps_the_file_it_opened(tmp_path: Path) -> None:
    install(tmp_path)
    target = tmp_path / "run.py"
    target.write_text("old")
    with target.open() as opened:
        install(tmp_path)
        assert opened.read() == "old"


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "lib").write_text("in the way")
    with pytest.raises(InstallError, match="cannot write"):
        install(tmp_path)


def test_the_umask_does_not_matter(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        install(tmp_path / "a" / "b")
    finally:
        os.umask(old)
    assert {mode for mode, _ in tree(tmp_path).values()} == {0o644}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    (tmp_path / "socket").write_text("no socket, so that serving ends at once")
    for name, value in (("BACKEND", "memory"), ("BUCKET", "b"), ("SOCKET", tmp_path / "socket"), ("HTTP_ADDR", "off")):
        monkeypatch.setenv(f"STATE_{name}", str(value))


@pytest.mark.usefixtures("settings")
def test_serve_installs_first(tmp_path, capsys):
    """The sidecar takes the place of the init container that installs."""
    assert main(["serve", "--install", str(tmp_path / "opt")]) == 1
    assert (tmp_path / "opt" / "run.py").is_file()
    assert "is no socket" in capsys.readouterr().err


def test_serve_needs_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("STATE_BACKEND", raising=False)
    assert main(["serve", "--install", str(tmp_path / "opt")]) == 2
    assert not (tmp_path / "opt").exists()
    assert "STATE_BACKEND" in capsys.readouterr().err


@pytest.mark.usefixtures("settings")
def test_serve_does_not_start_where_it_cannot_install(tmp_path, capsys):
    (tmp_path / "opt").write_text("a file")
    assert main(["serve", "--install", str(tmp_path / "opt")]) == 1
    assert "cannot write" in capsys.readouterr().err
