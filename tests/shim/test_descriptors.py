"""Handed-out descriptors and what must be refused: late writers, living mappings, locks, links."""

# ruff: noqa: SIM115

import ctypes
import errno
import fcntl
import functools
import gc
import io
import mmap
import os
import tempfile
import threading
from pathlib import Path

import pytest

from asya_shim import Turn, descriptors
from support.state_proxy import State


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "together"])
def together(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def raised(call: object, *args: object, **kwargs: object) -> int | None:
    with pytest.raises(OSError) as caught:  # noqa: PT011
        call(*args, **kwargs)  # type: ignore[operator]
    return caught.value.errno


def test_late_writers_get_eperm(state: State) -> None:
    with Turn():
        f = open(state.path("f"), "w+b")
        f.write(b"mine")
        late = os.dup(f.fileno())
        f.close()
        assert raised(os.write, late, b"late") == errno.EPERM
        assert raised(os.ftruncate, late, 0) == errno.EPERM
        assert os.pread(late, 10, 0) == b"mine"
        os.close(late)
    assert state.get("f") == b"mine"


def test_a_living_writable_mapping_makes_close_raise(state: State) -> None:
    with Turn():
        f = open(state.path("f"), "w+b")
        f.write(b"0123")
        f.flush()
        m = mmap.mmap(f.fileno(), 0)
        with pytest.raises(OSError, match=r"writable mapping.*close or delete it first") as caught:
            f.close()
        assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, state.path("f"))
        assert f.closed
        m.close()
    assert state.get("f") is None


def test_written_through_a_mapping_only(state: State) -> None:
    state.put("f", b"0123456789")
    with Turn():
        with open(state.path("f"), "r+b") as f:
            with mmap.mmap(f.fileno(), 0) as m:
                m[:3] = b"abc"
        assert state.get("f") == b"abc3456789"
        with open(state.path("f"), "r+b") as f:
            with mmap.mmap(f.fileno(), 0) as m:
                assert m[:3] == b"abc"
        assert state.trips(lambda: None) == 0


def test_a_descriptor_that_changed_nothing_stores_nothing(state: State) -> None:
    state.put("f", b"0123456789")
    with Turn() as t:
        with open(state.path("f"), "r+b") as f:
            os.read(f.fileno(), 3)
        assert not t.stored


def test_a_reader_s_descriptor_cannot_write(state: State) -> None:
    state.put("f", b"0123456789")
    with Turn(), open(state.path("f"), "rb") as f:
        assert raised(os.write, f.fileno(), b"x") == errno.EBADF
        f.read(2)
        assert os.pread(f.fileno(), 3, 0) == b"012"


def test_an_unlinked_temporary_file_goes_nowhere(state: State) -> None:
    os.mkdir(state.root)
    with Turn() as t:
        with tempfile.TemporaryFile(dir=state.root) as f:
            f.write(b"x" * 100)
            f.flush()
            assert os.fstat(f.fileno()).st_size == 100
        assert not t.stored
        assert os.listdir(state.root) == []


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf, os.lockf])
def test_locks_are_refused_and_name_what_works(lock: object, state: State) -> None:
    names = {fcntl.flock: "flock", fcntl.lockf: "lockf"}
    call = getattr(fcntl, names[lock]) if lock in names else os.lockf
    with Turn(), open(state.path("f"), "w") as f:
        args = (f.fileno(), os.F_LOCK, 0) if call is os.lockf else (f, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=r"open\(path, 'x'\)") as caught:
            call(*args)
        assert caught.value.errno == errno.ENOSYS
    with tempfile.TemporaryFile() as real:
        fcntl.flock(real, fcntl.LOCK_EX)


def test_a_lock_file_is_a_lock(state: State) -> None:
    held, inside, most = threading.Lock(), [0], [0]

    def work() -> None:
        with Turn():
            while True:
                try:
                    open(state.path("lock"), "x").close()
                    break
                except FileExistsError:
                    continue
            with held:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            with held:
                inside[0] -= 1
            os.remove(state.path("lock"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_links_and_special_files_are_refused(state: State, tmp_path: object) -> None:
    state.put("f", b"x")
    path, other = state.path("f"), state.path("g")
    with Turn():
        assert raised(os.link, path, other) == errno.EPERM
        assert raised(os.link, path, f"{tmp_path}/g") == errno.EPERM
        assert raised(os.symlink, path, other) == errno.EPERM
        assert raised(os.mkfifo, other) == errno.EPERM
        assert raised(os.chown, path, 12345, -1) == errno.EPERM
        os.chown(path, -1, -1)
        assert raised(os.rename, path, f"{tmp_path}/g") == errno.EXDEV
        assert raised(os.stat, state.root + "/../../etc/passwd") == errno.EACCES
        assert raised(open, state.root + "/../../tmp/x", "w") == errno.EACCES
    os.symlink(path, f"{tmp_path}/link")  # a link to a name, which the guard answers


def test_extended_attributes(state: State) -> None:
    with Turn():
        with open(state.path("f"), "w") as f:
            f.write("x")
        path = state.path("f")
        assert os.listxattr(path) == []
        os.setxattr(path, "user.asya.title", "één".encode())
        os.setxattr(path, "user.other", b"1")
        assert sorted(os.listxattr(path)) == ["user.asya.title", "user.other"]
        assert os.getxattr(path, "user.asya.title") == "één".encode()
        assert raised(os.getxattr, path, "user.asya.no") == errno.ENODATA
        assert raised(os.setxattr, path, "security.x", b"") == errno.ENOTSUP
        assert raised(os.setxattr, path, "user.other", b"2", os.XATTR_CREATE) == errno.EEXIST
        os.removexattr(path, "user.other")
        assert raised(os.removexattr, path, "user.other") == errno.ENODATA
        with open(path, "w") as f:
            f.write("still mine to write")
    assert state.get("f") == b"still mine to write"


def test_touch_is_a_metadata_change(state: State) -> None:
    state.put("f", b"x")
    with Turn():
        os.utime(state.path("f"), ns=(1, 5 * 10**9 + 7))
        assert os.stat(state.path("f")).st_mtime_ns == 5 * 10**9 + 7
        with open(state.path("f"), "w") as f:
            f.write("y")
        assert os.stat(state.path("f")).st_mtime_ns > 10**18
    assert state.get("f") == b"y"


def test_a_duplicate_that_was_closed_unseen(state: State, tmp_path: Path) -> None:
    """In C, as numpy closes those that it reads and writes through: its number is another file's then."""
    with open(state.path("f"), "w+b") as f:
        f.write(b"state")
        f.flush()
        duplicate = os.dup(f.fileno())
        io.FileIO(duplicate).close()
        (tmp_path / "other").write_bytes(b"a real file")
        lower = []  # numbers that another thread of this process gave back meanwhile
        while (fd := os.open(tmp_path / "other", os.O_RDONLY)) < duplicate:
            lower.append(fd)
        for number in lower:
            os.close(number)
        assert fd == duplicate
        try:
            assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "other"))
            with open(fd, "rb", closefd=False) as other:
                assert other.read() == b"a real file"
        finally:
            os.close(fd)
        kept = os.dup(f.fileno())
        os.write(kept, b"!")
        os.close(kept)
    assert state.get("f") == b"state!"
    assert not [fd for fd, file in descriptors.open_files.items() if file is f.raw]


def test_single_dispatch_on_the_classes_of_io(state: State, tmp_path: Path) -> None:
    """Real files and state files alike are of them, whichever way a function is registered."""

    @functools.singledispatch
    def kind(file: object) -> str:
        return "unknown"

    @kind.register(io.BufferedIOBase)
    @kind.register(io.BufferedWriter)
    def _(file: object) -> str:
        return "writer"

    @kind.register
    def _(file: io.BufferedRandom) -> str:
        return "random"

    kind.register(io.TextIOBase, lambda file: "text")
    kind.register(io.FileIO, lambda file: "raw")
    kind.register(io.RawIOBase, lambda file: "raw")
    for path in (state.path("f"), tmp_path / "f"):
        found = []
        for mode, options in (("wb", {}), ("w+b", {}), ("w", {}), ("rb", {"buffering": 0}), ("rb", {})):
            with open(path, mode, **options) as file:  # type: ignore[call-overload]
                found.append(kind(file))
        assert found == ["writer", "random", "text", "raw", "writer"]
    assert kind(1) == "unknown"


@pytest.mark.parametrize("again", [False, True], ids=["seen by the last close", "seen later"])
def test_a_duplicate_closed_in_c_is_no_descriptor_of_the_file_any_more(state: State, again: bool) -> None:
    """Its number belongs to whoever got it next, and the file is stored when its last descriptor is closed."""
    close_in_c = ctypes.CDLL(None).close
    fd = os.open(state.path("f"), os.O_CREAT | os.O_WRONLY)
    duplicate = os.dup(fd)
    os.write(fd, b"content")
    if again:
        os.close(fd)
        fd = -1
    close_in_c(duplicate)
    reader, writer = os.pipe()
    others = {reader, writer, os.dup(reader), os.dup(writer)}
    assert duplicate in others
    if again:
        assert duplicate not in descriptors.open_files
        gc.collect()
    else:
        os.close(fd)
    assert state.get("f") == b"content"
    for other in others:
        os.close(other)
