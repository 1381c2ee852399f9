"""What is said of libraries that open state paths by themselves, and when adapters are put in."""

# ruff: noqa: SIM115

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import asya_shim
from support.state_proxy import INTERPRETERS, State


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, "asya.shim"):
        yield caplog


def failing_turn(call: object, *args: object) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        with asya_shim.turn():
            call(*args)  # type: ignore[operator]
    return caught.value


class Elsewhere(Exception):
    """An exception of a library's own."""


Elsewhere.__module__ = "some_library.errors"


def throw(error: BaseException) -> None:
    raise error


def test_the_guard_s_answer_is_explained(lww: State, lines: pytest.LogCaptureFixture) -> None:
    path = lww.path("a b")
    for error, found, library in (
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", path), path, "a library called by "),
        (OSError(errno.EROFS, "Read-only file system", path.encode()), path, "a library called by "),
        (OSError(f"Unable to open file (name = '{lww.path('x')}', errno = 20)"), lww.path("x"), "a library called by "),
        (Elsewhere(f"Not a directory (os error 20): {lww.path('x')}"), lww.path("x"), "some_library "),
    ):
        lines.clear()
        assert failing_turn(throw, error) is error
        (line,) = lines.messages
        assert line.startswith(library)
        assert f"cannot open {found}: open() it and pass the file object" in line


def test_an_error_without_words_does_not_keep_a_turn_from_being_discarded(state: State) -> None:
    class Wordless(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def fail() -> None:
        file = open(state.path("half"), "w")
        file.write("half")
        raise Wordless

    assert type(failing_turn(fail)) is Wordless
    assert state.get("half") is None


def test_of_an_error_s_causes_too(lww: State, lines: pytest.LogCaptureFixture) -> None:
    def wrapping() -> None:
        try:
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", lww.path("x"))
        except OSError as error:
            raise RuntimeError("cannot load") from error

    failing_turn(wrapping)
    (line,) = lines.messages
    assert f"{lww.path('x')}: " in line


def test_other_errors_are_not(lww: State, lines: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lww.put("file", b"")
    for call in (
        lambda: open(lww.path("missing")),
        lambda: open(lww.path("file", "below")),
        lambda: os.listdir(lww.path("file")),
        lambda: open(tmp_path / "file" / "below"),
        lambda: throw(ValueError(lww.path("file"))),
        lambda: throw(FileNotFoundError(errno.ENOENT, "No such file or directory", lww.path("file"))),
    ):
        failing_turn(call)
        with asya_shim.turn():
            pass
    assert lines.messages == []


def test_programs_that_are_given_a_state_path(lww: State, lines: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    lww.put("f", b"text")
    script = tmp_path / "script"
    script.write_text(f"#!{sys.executable}\nprint(1)\n")
    script.chmod(0o700)
    path = lww.path("f")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}
    subprocess.run([sys.executable, "-c", "", path], **quiet)  # type: ignore[call-overload]
    subprocess.run([script, path], **quiet)  # type: ignore[call-overload]
    root = lww.proxy.mount.path
    subprocess.run(["echo", str(tmp_path), f"/elsewhere{path}", f"{root}ments", f"x{root}"], **quiet)  # type: ignore[call-overload]
    assert lines.messages == []
    for command, shown, named in (
        (["cat", Path(path)], "cat", path),
        (["sh", "-c", f"cat '{path}'"], "sh", path),
        (["ls", root], "ls", root),
        (["sh", "-c", f"ls {root}; true"], "sh", root),
    ):
        lines.clear()
        subprocess.run(command, **quiet)  # type: ignore[call-overload]
        (line,) = lines.messages
        assert line.startswith(f"the program {shown} opens files by itself")
        assert f"cannot open {named}: hand it the open file as stdin or stdout" in line
    lines.clear()
    assert os.system(f"cat {path} 2>/dev/null") != 0
    assert f"the program sh opens files by itself, past the file hooks, and cannot open {path}: " in lines.text


def test_programs_that_are_to_start_in_a_state_directory(lww: State, lines: pytest.LogCaptureFixture) -> None:
    lww.put("d/f", b"text")
    with pytest.raises(OSError):  # noqa: PT011
        subprocess.run(["pwd"], cwd=lww.path("d"), check=False)
    assert f"and cannot start in {lww.path('d')}: start it in another directory" in lines.text


def test_looking_for_a_module_leaves_its_rows_waiting(lww: State, tmp_path: Path) -> None:
    """`importlib.util.find_spec` is how libraries look whether another one is installed; and an import may fail."""
    program = """
import importlib.util, os, sys
os.mkdir("one"), os.mkdir("two")
open("one/cv2.py", "w").write("raise ImportError('no libGL')")
open("two/cv2.py", "w").write("def imread(name): return None\\nimread.real = True")
sys.path.insert(0, "one")
assert importlib.util.find_spec("cv2").origin.endswith("one/cv2.py")
try: import cv2
except ImportError: pass
sys.path[0] = "two"
assert importlib.util.find_spec("cv2").origin.endswith("two/cv2.py")
import cv2
assert cv2.imread.__wrapped__.real, cv2.imread
assert cv2.imread("elsewhere") is None
assert type(cv2.__loader__).__name__ == type(cv2.__spec__.loader).__name__ == "SourceFileLoader"
asya_shim.deactivate()
assert not hasattr(cv2.imread, "__wrapped__")
assert asya_shim.activate_from_environment()
assert cv2.imread.__wrapped__.real
print("fine")
"""
    done = lww.proxy.run(program, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_adapters_wait_for_their_libraries(lww: State) -> None:
    done = lww.proxy.run("import sys; print([name for name in sys.modules if name.startswith('asya_shim.')])")
    assert "'asya_shim.table'" in done.stdout
    for name in ("adapters", "leaks"):
        assert f"'asya_shim.{name}'" not in done.stdout


@pytest.mark.parametrize("python", INTERPRETERS)
def test_imports_and_programs_of_any_kind_go_on(lww: State, tmp_path: Path, python: str) -> None:
    program = f"""
import gzip, importlib, io, os, subprocess, sys, types, zipfile
root = {lww.path()!r}
# a finder of before Python 3.4, behind the shim's own, and a loader without `exec_module` up to Python 3.9
class Old:
    def find_module(self, name, path=None): return None
sys.meta_path.insert(1, Old())
with zipfile.ZipFile("archive.zip", "w") as archive:
    archive.writestr("zarr/__init__.py", "")
    archive.writestr("zarr/storage/__init__.py", "")
    archive.writestr("zarr/storage/_local.py", "def _safe_move(src, dst): return 1\\n_safe_move.real = True")
sys.path.insert(0, "archive.zip")
import zarr.storage._local, shelve
assert zarr.storage._local._safe_move.__wrapped__.real
assert zarr.storage._local._safe_move("a", "b") == 1
# a module that is loaded anew
importlib.reload(gzip), importlib.reload(os), importlib.reload(io)
try:
    with gzip.open(root + "/f.gz", "wb") as file:
        raise KeyError
except KeyError:
    pass
assert not os.path.exists(root + "/f.gz")
# somebody's module of a known name
sys.modules["greenlet"] = types.ModuleType("greenlet")
assert not os.path.exists(root + "/f")
# somebody's class with properties that fail
class Hostile(io.RawIOBase):
    def writable(self): return True
    @property
    def fileobj(self): raise RuntimeError
io.BufferedWriter(Hostile())
# `str(bytes)` is an error under -bb
code = "import asya_shim, subprocess; asya_shim.activate_from_environment(); subprocess.check_call([b'true', b'x'])"
subprocess.check_call([sys.executable, "-bb", "-c", code])
print("fine")
"""
    done = lww.proxy.run(program, INTERPRETERS[python], cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
