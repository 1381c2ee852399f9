"""Interpreter exit, forks, child processes, activation and deactivation."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import asya_shim
from support.state_proxy import INTERPRETERS, ROOT, Proxy, child_environ


def stored(proxy: Proxy, name: str) -> bytes | None:
    found = proxy.pod().read(name.encode())
    return None if found is None else found.data


@pytest.mark.parametrize("python", INTERPRETERS)
class TestExit:
    def name(self, proxy: Proxy, python: str, test: str) -> str:
        return f"exit-{test}-{python}"

    def test_stores_open_files(self, proxy: Proxy, python: str) -> None:
        name = self.name(proxy, python, "open")
        done = proxy.run(
            f"""
import os
f = open({proxy.mount.path + "/" + name!r}, "w")
f.write("text")
fd = os.open({proxy.mount.path + "/" + name + "-fd"!r}, os.O_WRONLY | os.O_CREAT)
os.write(fd, b"bytes")
log = open({proxy.mount.path + "/" + name + "-log"!r}, "a")
log.write("line")
""",
            INTERPRETERS[python],
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert stored(proxy, name) == b"text"
        assert stored(proxy, name + "-fd") == b"bytes"
        assert stored(proxy, name + "-log") == b"line"

    def test_after_an_exception_too(self, proxy: Proxy, python: str) -> None:
        name = self.name(proxy, python, "raise")
        done = proxy.run(
            f'f = open({proxy.mount.path + "/" + name!r}, "w"); f.write("text"); raise KeyError', INTERPRETERS[python]
        )
        assert done.returncode == 1
        assert stored(proxy, name) == b"text"

    def test_a_failure_makes_the_status_74(self, proxies: dict[str, Proxy], python: str) -> None:
        proxy = proxies["cas"]
        name = self.name(proxy, python, "fail")
        program = f"""
import sys
print("out")
f = open({proxy.mount.path + "/" + name!r}, "w")
f.write("mine")
from asya_shim import paths
paths.mounts[0].remote.write({name.encode()!r}, b"other", if_absent=True)
"""
        done = proxy.run(program, INTERPRETERS[python])
        assert done.returncode == 74
        assert done.stdout == "out\n"
        assert name in done.stderr
        assert stored(proxy, name) == b"other"

    def test_a_child_does_not_store_its_parent_s_files(self, proxy: Proxy, python: str) -> None:
        name = self.name(proxy, python, "fork")
        path = proxy.mount.path + "/" + name
        program = f"""
import os, sys, warnings
warnings.simplefilter("ignore")
f = open({path!r}, "w"); f.write("parent"); f.flush()
log = open({path + "-log"!r}, "a"); log.write("parent\\n"); log.flush()
pid = os.fork()
if pid == 0:
    log.write("child\\n")
    with open({path + "-child"!r}, "w") as g: g.write("child")
    sys.exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
f.write("!")
f.close(); log.close()
"""
        done = proxy.run(program, INTERPRETERS[python])
        assert (done.returncode, done.stderr) == (0, "")
        assert stored(proxy, name) == b"parent!"
        assert sorted((stored(proxy, name + "-log") or b"").splitlines()) == [b"child", b"parent"]
        assert stored(proxy, name + "-child") == b"child"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(proxy: Proxy, method: str, tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "sitecustomize.py").write_text((ROOT / "shim/src/asya_shim/_sitecustomize.py").read_text())
    script = tmp_path / "program.py"
    script.write_text(f"""
import multiprocessing, warnings
warnings.simplefilter("ignore")

def work(n):
    with open(f"{proxy.mount.path}/mp-{method}-{{n}}", "w") as f:
        f.write(str(n))
    with open("{proxy.mount.path}/mp-{method}-log", "a") as f:
        f.write(f"{{n}}\\n")

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool:
        pool.map(work, range(4))
        pool.close(); pool.join()
""")
    env = child_environ() | proxy.environ()
    env["PYTHONPATH"] = f"{lib}:{env['PYTHONPATH']}"
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert [stored(proxy, f"mp-{method}-{n}") for n in range(4)] == [b"0", b"1", b"2", b"3"]
    assert sorted((stored(proxy, f"mp-{method}-log") or b"").split()) == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("python", INTERPRETERS)
class TestActivation:
    def test_sitecustomize_activates_and_hands_on(self, proxy: Proxy, python: str, tmp_path: Path) -> None:
        lib, image = tmp_path / "lib", tmp_path / "image"
        lib.mkdir()
        image.mkdir()
        (lib / "sitecustomize.py").write_text((ROOT / "shim/src/asya_shim/_sitecustomize.py").read_text())
        (image / "sitecustomize.py").write_text("MINE = 1\n")
        env = child_environ() | proxy.environ()
        env["PYTHONPATH"] = f"{lib}:{env['PYTHONPATH']}:{image}"
        program = f"import sitecustomize, os; print(sitecustomize.MINE, os.listdir({proxy.mount.path!r}) is not None)"
        done = subprocess.run(
            [INTERPRETERS[python], "-c", program], env=env, capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.stderr, done.returncode) == ("1 True\n", "", 0)

    def test_a_bad_environment_ends_the_process(self, python: str) -> None:
        for name, value in (
            ("ASYA_STATE_PROXY_MOUNTS", "state:relative"),
            ("ASYA_STATE_REQUEST_TIMEOUT", "soon"),
            ("ASYA_STATE_MAX_FILE_SIZE", "1"),
        ):
            env = child_environ() | {"ASYA_STATE_PROXY_MOUNTS": "state:/state"} | {name: value}
            done = subprocess.run(
                [INTERPRETERS[python], "-c", "import asya_shim; asya_shim.activate_from_environment(); print('on')"],
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 78
            assert done.stdout == ""
            assert name in done.stderr
            assert value in done.stderr

    def test_without_mounts_nothing_is_imported_or_changed(self, python: str) -> None:
        program = """
import sys, builtins, io, os
before = builtins.open, os.stat
import asya_shim
assert asya_shim.activate_from_environment() is False
assert (builtins.open, os.stat) == before
assert [m for m in sys.modules if m.startswith("asya")] == ["asya_shim"], sys.modules
with asya_shim.Turn() as t: t.commit()
print("fine")
"""
        done = subprocess.run(
            [INTERPRETERS[python], "-c", program], env=child_environ(), capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.stderr) == ("fine\n", "")

    def test_imports_nothing_slow(self, python: str) -> None:
        """In the environment that nearly every pod has. Without `site`, Python itself starts with none of these."""
        program = """
import sys
slow = {"functools", "json", "re", "typing", "urllib"}
before = set(sys.modules)
import asya_shim
assert asya_shim.activate_from_environment()
print(sorted(slow & before), sorted(name for name in set(sys.modules) - before if name.split(".")[0] in slow))
"""
        done = subprocess.run(
            [INTERPRETERS[python], "-S", "-c", program],
            env=child_environ() | {"ASYA_STATE_PROXY_MOUNTS": "state:/state"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("[] []\n", "")

    def test_gives_every_function_back(self, proxy: Proxy, python: str) -> None:
        program = f"""
import asya_shim
asya_shim.deactivate()
import builtins, io, os, posix, _io, posixpath, pathlib, glob, shutil, tempfile, gzip, zipfile, threading
def look():
    found = {{}}
    for module in (builtins, io, _io, os, posix, posixpath, glob, shutil, tempfile, gzip):
        for name, value in vars(module).items():
            if callable(value): found[module.__name__, name] = value
    for kind in (pathlib.Path, gzip.GzipFile, zipfile.ZipFile, threading.Thread):
        for name, value in vars(kind).items(): found[kind.__name__, name] = value
    found["defaults"] = tempfile._TemporaryFileCloser.__init__.__defaults__
    return found
before = look()
assert asya_shim.activate_from_environment()
changed = [name for name, value in look().items() if before.get(name) is not value]
assert len(changed) > 60, changed
os.listdir({proxy.mount.path!r})
asya_shim.deactivate()
after = look()
assert before.keys() == after.keys(), before.keys() ^ after.keys()
assert [name for name in before if before[name] is not after[name]] == []
assert not os.path.exists({proxy.mount.path!r})
print("fine")
"""
        done = proxy.run(program, INTERPRETERS[python])
        assert (done.stdout, done.stderr) == ("fine\n", "")

    def test_references_captured_before(self, proxy: Proxy, python: str) -> None:
        path = f"{proxy.mount.path}/captured-{python}"
        program = f"""
import asya_shim
asya_shim.deactivate()
import os, io, pathlib, tempfile, tarfile, bz2, tokenize, glob, functools, types, sys
m = types.ModuleType("user_module")
sys.modules["user_module"] = m
exec('''
from os import stat, remove as rm, listdir
from os.path import exists
from builtins import open as keep_open
class Store:
    opener = staticmethod(open)
    bare = open
    def put(self, path, text, how=open):
        with how(path, "w") as f: f.write(text)
def closure():
    inner = stat
    def size(path, *, probe=exists): return inner(path).st_size if probe(path) else None
    return size
size = closure()
''', m.__dict__)
for kind in (m.Store,): kind.__module__ = "user_module"
assert asya_shim.activate_from_environment()
path = {path!r}
m.Store().put(path, "four")
assert m.size(path) == 4 and m.stat(path).st_size == 4 and m.exists(path)
with m.keep_open(path) as f: assert f.read() == "four"
with m.Store.opener(path) as f: assert f.read() == "four"
with m.Store().bare(path) as f: assert f.read() == "four"
assert m.listdir({proxy.mount.path!r})
assert pathlib.Path(path).read_text() == "four"
assert [str(p) for p in pathlib.Path({proxy.mount.path!r}).glob("captured-{python}")] == [path]
with tempfile.NamedTemporaryFile(dir={proxy.mount.path!r}) as f: pass
assert not os.path.exists(f.name)
with bz2.open(path + ".bz2", "wb") as f: f.write(b"x")
with tarfile.open(path + ".tar", "w") as t: t.add(path)
m.rm(path)
assert not m.exists(path)
print("fine")
"""
        done = proxy.run(program, INTERPRETERS[python])
        assert (done.stdout, done.stderr) == ("fine\n", "")

    def test_functions_that_were_replaced_before(self, proxy: Proxy, python: str) -> None:
        """By objects without the attributes of a function, as profilers and test doubles leave them."""
        path = f"{proxy.mount.path}/replaced-{python}"
        program = f"""
import asya_shim
asya_shim.deactivate()
import functools, operator, os, shutil
from unittest import mock
class Odd:
    __slots__ = ("real",)
    __name__ = 5
    def __init__(self, real): self.real = real
    def __call__(self, *args, **kwargs): return self.real(*args, **kwargs)
os.path.exists = functools.partial(os.path.exists)
os.path.isfile = operator.truth
os.path.isdir = mock.Mock(wraps=os.path.isdir)
os.walk = Odd(os.walk)
shutil.rmtree = functools.partial(shutil.rmtree)
shutil.copyfile = functools.partial(shutil.copyfile)
before = os.path.exists, os.path.isfile, os.path.isdir, os.walk
assert asya_shim.activate_from_environment()
os.mkdir({path!r})
with open({path!r} + "/f", "w") as f: f.write("text")
shutil.copyfile({path!r} + "/f", {path!r} + "/g")
assert os.path.exists({path!r}) and os.path.isdir({path!r}) and os.path.isfile("nowhere")
assert [sorted(names) for _, _, names in os.walk({path!r})] == [["f", "g"]]
shutil.rmtree({path!r})
assert not os.path.exists({path!r})
asya_shim.deactivate()
assert (os.path.exists, os.path.isfile, os.path.isdir, os.walk) == before
print("fine")
"""
        done = proxy.run(program, INTERPRETERS[python])
        assert (done.stdout, done.stderr) == ("fine\n", "")

    def test_ends_silently_where_the_program_keeps_it_alive(self, proxy: Proxy, python: str) -> None:
        """Up to when the interpreter has emptied the shim's modules."""
        program = """
import os
asya_shim.deactivate()
class Kept:
    def __call__(self, path, real=os.path.exists): return real(path)
os.path.exists = Kept()
assert asya_shim.activate_from_environment()
"""
        done = proxy.run(program, INTERPRETERS[python])
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)

    def test_what_gets_past_the_hooks_is_refused(self, proxy: Proxy, python: str) -> None:
        """And told of in one line each, with the path, the library and the way that works."""
        path = proxy.mount.path + "/leak"
        program = f"""
import io, os, sqlite3, errno
path = {path!r}
class Mine(io.FileIO): pass
uri = "file://" + path.replace("k", "%6b") + "?mode=rwc"
for leak in (lambda: Mine(path, "w"), lambda: sqlite3.connect(path), lambda: sqlite3.connect(uri, uri=True)):
    try: leak()
    except OSError as error: print(error.errno == errno.ENOTSUP, os.fsdecode(error.filename), "serialize" in str(error))
sqlite3.connect("file:" + path + "?mode=memory", uri=True).close()
import pickle
assert pickle.loads(pickle.dumps(os.stat)) == os.stat and pickle.loads(pickle.dumps(os.remove)) == os.remove
assert pickle.loads(pickle.dumps(open)) == open
assert os.stat in os.supports_dir_fd and os.scandir in os.supports_fd and os.stat in os.supports_follow_symlinks
"""
        done = proxy.run(program, INTERPRETERS[python])
        assert done.stdout == f"True {path} False\n" + f"True {path} True\n" * 2
        mine, *sqlite = done.stderr.splitlines()
        assert re.fullmatch(
            rf"a library called by __main__ \(line \d+\) opens .* {path}: open\(\) it and pass .*", mine
        )
        assert len(sqlite) == 2
        for line in sqlite:
            assert re.fullmatch(rf"sqlite3 opens .* {path}: keep the database in memory, .*serialize.*", line)
        assert not os.path.exists(proxy.mount.path)


def test_a_working_directory_below_the_mount(own_proxy: Proxy, tmp_path: Path) -> None:
    """An image whose WORKDIR is the mount path, under the guard of kind `directory`."""
    environ = own_proxy.environ() | {"ASYA_STATE_PROXY_MOUNTS": f"cas:{tmp_path}/work"}
    (tmp_path / "work").mkdir()
    program = """
with open("relative", "w") as f: f.write("x")
import os; print(os.getcwd(), os.listdir())
"""
    done = own_proxy.run(program, env=environ, cwd=tmp_path / "work")
    assert (done.stdout, done.stderr) == (f"{tmp_path}/work ['relative']\n", "")
    assert stored(own_proxy, "relative") == b"x"
    assert os.listdir(tmp_path / "work") == []


def test_a_proxy_that_dies_between_two_calls(own_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed and started again: the turn goes on, its tokens with it."""
    for name, value in own_proxy.environ(timeout="20s").items():
        monkeypatch.setenv(name, value)
    assert asya_shim.activate_from_environment()
    try:
        path = own_proxy.mount.path + "/f"
        with asya_shim.Turn() as turn:
            with open(path, "w") as f:
                f.write("one")
            own_proxy.stop(signal.SIGKILL)
            own_proxy.start()
            with open(path, "a") as f:
                f.write(" two")
            own_proxy.stop(signal.SIGKILL)
            restart = threading.Timer(0.3, own_proxy.start)
            restart.start()
            with open(path) as f:
                assert f.read() == "one two"
            restart.join()
            with open(path, "w") as f:
                f.write("three")
            turn.commit()
        assert stored(own_proxy, "f") == b"three"
    finally:
        asya_shim.deactivate()


def test_activating_twice_is_activating_once(proxies: dict[str, Proxy], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in proxies["lww"].environ().items():
        monkeypatch.setenv(name, value)
    before = os.stat
    assert asya_shim.activate_from_environment()
    hooked = os.stat
    assert hooked is not before
    assert asya_shim.activate_from_environment()
    assert os.stat is hooked
    asya_shim.deactivate()
    assert os.stat is before
    asya_shim.deactivate()
