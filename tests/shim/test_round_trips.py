"""What each operation costs, in requests to the proxy."""

# ruff: noqa: SIM115

import os
from pathlib import Path

import pytest

from asya_shim import Turn
from support.state_proxy import State


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "together"])
def together(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def read(path: str) -> bytes:
    with open(path, "rb") as f:
        return f.read()


def write(path: str, data: bytes) -> None:
    with open(path, "wb") as f:
        f.write(data)


def test_reading(state: State) -> None:
    state.put("f", b"x" * 1000)
    path = state.path("f")
    with Turn():
        assert state.trips(lambda: read(path)) == 1
        assert state.trips(lambda: Path(path).read_text()) == 1
        assert state.trips(lambda: os.stat(path)) == 1
        assert state.trips(lambda: os.path.exists(path)) == 1
        assert state.trips(lambda: os.path.exists(path + "no")) == 1
        f = open(path, "r+")
        assert state.trips(lambda: (f.read(), f.close())) == 0
        f = open(path)
        assert state.trips(f.close) == 0


def test_writing(state: State) -> None:
    state.put("f", b"x")
    path = state.path("f")
    with Turn():
        assert state.trips(lambda: write(path, b"1")) == (2 if state.cas else 1)
        assert state.trips(lambda: write(path, b"2")) == 1
    with Turn():
        read(path)
        assert state.trips(lambda: write(path, b"3")) == 1
        assert state.trips(lambda: os.remove(path)) == 1
        assert state.trips(lambda: write(path, b"4")) == 1
    with Turn():
        assert state.trips(lambda: os.remove(path)) == (2 if state.cas else 1)


def test_atomic_write(state: State) -> None:
    state.put("f", b"x")
    with Turn():
        read(state.path("f"))
        write(state.path("tmp"), b"new")
        assert state.trips(lambda: os.replace(state.path("tmp"), state.path("f"))) == 1


def test_a_directory_is_one(state: State) -> None:
    for n in range(50):
        state.put(f"d/{n}", b"x" * n)
    with Turn():
        assert state.trips(lambda: os.listdir(state.path("d"))) == 1
        assert state.trips(lambda: [(e.is_dir(), e.stat().st_size) for e in os.scandir(state.path("d"))]) == 1
        assert state.trips(lambda: list(os.walk(state.path("d")))) == 1
        assert state.trips(lambda: list(Path(state.path("d")).iterdir())) == 1


def test_a_walk_asks_once_for_each_directory(state: State) -> None:
    for n in range(6):
        state.put(f"t/{n}/a/f", b"")
        state.put(f"t/{n}/b/f", b"")
    with Turn():
        for topdown in (True, False):
            walk = [(len(dirs), len(files)) for _, dirs, files in os.walk(state.path("t"), topdown=topdown)]
            assert sum(files for _, files in walk) == 12
            trips = state.trips(lambda topdown=topdown: list(os.walk(state.path("t"), topdown=topdown)))
            assert trips == len(walk) == 19
        assert state.trips(lambda: os.path.islink(state.path("t/0"))) == 1


def test_paths_outside_cost_nothing(state: State, tmp_path: Path) -> None:
    def work() -> None:
        (tmp_path / "state-lww").write_text("x")
        os.stat(tmp_path / "state-lww")
        os.listdir(tmp_path)
        os.rename(tmp_path / "state-lww", tmp_path / "b")
        os.path.exists("/state-lww-and-more")

    assert state.trips(work) == 0


def test_large_files_are_read_by_ranges_of_one_version(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    from asya_shim import StateConflictError, content, lookups

    monkeypatch.setattr(lookups, "HELD", 1000)
    monkeypatch.setattr(content, "WINDOW", 500)
    data = bytes(range(256)) * 16
    state.put("big", data)
    with Turn(), open(state.path("big"), "rb", buffering=64) as f:
        assert f.seek(0, 2) == len(data)
        assert state.trips(lambda: (f.seek(10), f.read(20), f.seek(900), f.read(50))) == 0
        f.seek(3000)
        assert state.trips(lambda: f.read(100)) == 1
        f.seek(3000)
        assert f.read(100) == data[3000:3100]
        state.put("big", data[::-1])
        f.seek(2000)
        with pytest.raises(StateConflictError):
            f.read(10)
    with Turn(), open(state.path("big"), "rb") as f:
        assert f.read() == data[::-1]
