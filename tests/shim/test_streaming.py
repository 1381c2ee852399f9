"""Large files: sent ahead while they are written, whatever the size, and what seeking back does to that."""

# ruff: noqa: PT012, SIM115

import errno
import os
import zipfile

import pytest

from asya_shim import StateConflictError, Turn, nodes, streaming
from support.state_proxy import State

PIECE = 64 * 1024


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same at a fiftieth of the size; to be called once the shim is active, which sets the limit."""
    monkeypatch.setattr(nodes, "AHEAD_FROM", 4 * PIECE)
    monkeypatch.setattr(nodes, "max_file_size", 16 * PIECE)
    monkeypatch.setattr(streaming, "_PIECE", PIECE)


@pytest.fixture
def state(state: State, monkeypatch: pytest.MonkeyPatch) -> State:
    shrink(monkeypatch)
    return state


@pytest.fixture
def cas(cas: State, monkeypatch: pytest.MonkeyPatch) -> State:
    shrink(monkeypatch)
    return cas


@pytest.fixture
def log(state: State, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which changes the file went by."""
    calls: list[str] = []
    for name in ("write", "upload"):
        real = getattr(state.remote, name)

        def noted(*args: object, real: object = real, name: str = name, **kwargs: object) -> object:
            calls.append(name)
            return real(*args, **kwargs)  # type: ignore[operator]

        monkeypatch.setattr(state.remote, name, noted)
    return calls


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize("pieces", [3, 5, 15, 16, 17, 40])
@pytest.mark.parametrize("buffering", [0, 1000, 8192])
def test_sequential_writes_of_any_size(pieces: int, buffering: int, state: State, log: list[str]) -> None:
    data = pattern(pieces * PIECE + 17)
    with Turn():
        with open(state.path("f"), "wb", buffering=buffering) as f:
            for start in range(0, len(data), 3000):
                f.write(data[start : start + 3000])
            assert f.tell() == len(data)
        assert log == (["upload"] if pieces > 4 else ["write"])
        assert state.get("f") == data
        with open(state.path("f"), "rb") as f:
            assert f.read() == data
        with open(state.path("f"), "wb") as f:
            f.write(b"small again")
    assert state.get("f") == b"small again"


def test_a_seek_back_gives_the_stream_up(state: State, log: list[str]) -> None:
    data = pattern(8 * PIECE)
    with Turn(), open(state.path("f"), "wb") as f:
        f.write(data)
        f.seek(0)
        f.write(b"HEAD")
    assert log == ["upload", "write"]
    assert state.get("f") == b"HEAD" + data[4:]


def test_zipfile_seeks_back(state: State) -> None:
    with Turn():
        with zipfile.ZipFile(state.path("z"), "w") as z:
            z.writestr("big", pattern(8 * PIECE))
        with zipfile.ZipFile(state.path("z")) as z:
            assert z.read("big") == pattern(8 * PIECE)


def test_beyond_the_limit_seeking_back_raises(state: State) -> None:
    data = pattern(20 * PIECE)
    with Turn():
        f = open(state.path("f"), "wb", buffering=0)
        f.write(data)
        for call in (lambda: (f.seek(0), f.write(b"x")), lambda: f.truncate(0)):
            with pytest.raises(OSError, match="MAX_FILE_SIZE") as caught:
                call()
            assert caught.value.errno == errno.ESPIPE
        f.seek(0, 2)
        f.write(b"end")
        with open(state.path("f"), "rb") as g, pytest.raises(OSError, match="MAX_FILE_SIZE") as caught:
            g.read()
        assert caught.value.errno == errno.EFBIG
        f.close()
    assert state.get("f") == data + b"end"


@pytest.mark.parametrize("mode", ["w+b", "r+b", "ab"])
def test_beyond_the_limit_other_modes_raise(mode: str, state: State) -> None:
    state.put("f", b"old")
    with Turn(), pytest.raises(OSError, match="MAX_FILE_SIZE") as caught, open(state.path("f"), mode, buffering=0) as f:
        for _ in range(20):
            f.seek(0, 2)
            f.write(pattern(PIECE))
    assert caught.value.errno == errno.EFBIG
    assert state.get("f") == b"old"


def test_an_aborted_block_stores_nothing(state: State) -> None:
    with Turn(), pytest.raises(KeyError), open(state.path("f"), "wb") as f:
        f.write(pattern(20 * PIECE))
        raise KeyError
    assert state.get("f") is None


def test_a_discarded_turn_stores_nothing(state: State) -> None:
    with Turn() as t:
        f = open(state.path("f"), "wb")
        f.write(pattern(20 * PIECE))
        t.discard()
    assert f.closed
    assert state.get("f") is None


def test_a_conflict(cas: State) -> None:
    cas.put("f", b"1")
    with Turn():
        f = open(cas.path("f"), "wb")
        f.write(pattern(8 * PIECE))
        cas.put("f", b"2")
        with pytest.raises(StateConflictError):
            f.close()
    assert cas.get("f") == b"2"


def test_fsync_stores_and_writing_goes_on(state: State) -> None:
    data = pattern(8 * PIECE)
    with Turn():
        f = open(state.path("f"), "wb", buffering=0)
        f.write(data)
        os.fsync(f.fileno())
        assert state.get("f") == data
        f.write(data)
        f.close()
    assert state.get("f") == data + data


def test_a_stream_that_breaks_is_sent_as_one(state: State, log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    data = pattern(12 * PIECE)
    with Turn(), open(state.path("f"), "wb") as f:
        f.write(data[: 8 * PIECE])
        assert log == ["upload"]
        node = f.raw.node
        node._ahead._upload._connection.close()
        f.write(data[8 * PIECE :])
    assert log == ["upload", "write"]
    assert state.get("f") == data


class TestCloseThatCannotWriteTheRest:
    """A buffer writes its rest in `close()`: where that fails, the file would lack it."""

    def test_a_header_that_comes_too_late(self, state: State) -> None:
        state.put("f", b"old")
        with Turn(), pytest.raises(OSError, match="can only be written on at its end") as caught:
            with open(state.path("f"), "wb") as f:
                f.write(bytes(17 * PIECE))
                f.seek(0)
                f.write(b"header")
        assert (caught.value.errno, caught.value.filename) == (errno.ESPIPE, state.path("f"))
        assert state.get("f") == b"old"

    @pytest.mark.parametrize("mode", ["w+b", "r+b"])
    def test_more_than_fits(self, mode: str, state: State) -> None:
        state.put("f", b"old")
        f = open(state.path("f"), mode)
        f.write(bytes(16 * PIECE - 1))
        f.flush()
        f.write(b"xx")
        with Turn(), pytest.raises(OSError, match="nothing of the file is stored") as caught:
            f.close()
        assert caught.value.errno == errno.EFBIG
        assert state.get("f") == b"old"

    def test_a_failure_that_is_caught_is_told_again(self, state: State) -> None:
        f = open(state.path("f"), "w+b", buffering=0)
        f.write(b"kept")
        with pytest.raises(OSError, match="ASYA_STATE_MAX_FILE_SIZE"):
            f.write(bytes(16 * PIECE))
        with pytest.raises(OSError, match="nothing of the file is stored"):
            f.close()
        assert f.closed
        assert state.get("f") is None

    @pytest.mark.parametrize("mended", ["by a write", "by truncate"])
    def test_a_failure_that_is_mended_is_forgotten(self, mended: str, state: State) -> None:
        with open(state.path("f"), "w+b", buffering=0) as f:
            f.write(b"kept")
            with pytest.raises(OSError, match="ASYA_STATE_MAX_FILE_SIZE"):
                f.write(bytes(16 * PIECE))
            if mended == "by a write":
                f.write(b" too")
            else:
                f.truncate(2)
        assert state.get("f") == (b"kept too" if mended == "by a write" else b"ke")

    def test_an_x_file_is_taken_away(self, state: State) -> None:
        f = open(state.path("f"), "x+b")
        f.write(bytes(16 * PIECE))
        f.flush()
        f.write(b"x")
        with pytest.raises(OSError, match="nothing of the file is stored"):
            f.close()
        assert state.get("f") is None

    def test_what_was_flushed_to_a_log_stands(self, state: State) -> None:
        f = open(state.path("f"), "ab")
        f.write(b"kept")
        f.flush()
        with pytest.raises(OSError, match="ASYA_STATE_MAX_FILE_SIZE"):
            f.write(bytes(16 * PIECE))
        f.close()
        assert state.get("f") == b"kept"
