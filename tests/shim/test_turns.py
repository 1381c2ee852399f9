"""The end of a turn, and of a block: what is committed, what is discarded, and when it is said."""

# ruff: noqa: PT011, PT012, SIM115

import bz2
import contextlib
import errno
import gc
import gzip
import io
import logging
import logging.handlers
import lzma
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asya_shim import StateConflictError, StateUnavailableError, Turn, endings, turn
from support.state_proxy import State


class Boom(Exception):
    pass


def _text(path: str) -> Any:
    return open(path, "w")


WRITERS: dict[str, Callable[[str], Any]] = {
    "text": lambda path: open(path, "w"),
    "binary": lambda path: open(path, "wb"),
    "raw": lambda path: open(path, "wb", buffering=0),
    "exclusive": lambda path: open(path, "x"),
    "append": lambda path: open(path, "a"),
    "update": lambda path: open(path, "w+"),
    "fileio": lambda path: io.FileIO(path, "w"),
    "gzip": lambda path: gzip.open(path, "wb"),
    "gzip text": lambda path: gzip.open(path, "wt"),
    "GzipFile": lambda path: gzip.GzipFile(path, "w"),
    "bz2": lambda path: bz2.open(path, "wb"),
    "bz2 text": lambda path: bz2.open(path, "wt"),
    "lzma": lambda path: lzma.open(path, "wb"),
    "lzma text": lambda path: lzma.open(path, "wt"),
    "zipfile": lambda path: zipfile.ZipFile(path, "w"),
    "tarfile": lambda path: tarfile.open(path, "w"),
    "tarfile gz": lambda path: tarfile.open(path, "w:gz"),
    "TextIOWrapper": lambda path: io.TextIOWrapper(open(path, "wb")),
    "BufferedWriter": lambda path: io.BufferedWriter(io.FileIO(path, "w")),
    "BufferedRandom": lambda path: io.BufferedRandom(open(path, "w+b", buffering=0)),
    "a class of TextIOWrapper": lambda path: type("Mine", (io.TextIOWrapper,), {})(open(path, "wb")),
    "TextIOWrapper on gzip": lambda path: io.TextIOWrapper(gzip.open(path, "wb")),
    "os.fdopen": lambda path: os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT), "w"),
}


def _fill(f: Any) -> None:
    if isinstance(f, zipfile.ZipFile):
        f.writestr("n", b"x")
    elif isinstance(f, tarfile.TarFile):
        f.addfile(tarfile.TarInfo("n"))
    else:
        try:
            f.write("x")
        except TypeError:
            f.write(b"x")


@pytest.mark.parametrize("kind", WRITERS)
class TestBlocks:
    def test_that_raises_stores_nothing(self, kind: str, state: State) -> None:
        with Turn():
            with pytest.raises(Boom), WRITERS[kind](state.path("f")) as f:
                _fill(f)
                raise Boom
            assert state.get("f") is None
            assert not os.path.exists(state.path("f"))

    def test_that_raises_in_an_exit_stack_stores_nothing(self, kind: str, state: State) -> None:
        with Turn(), pytest.raises(Boom), contextlib.ExitStack() as stack:
            _fill(stack.enter_context(WRITERS[kind](state.path("f"))))
            raise Boom
        assert state.get("f") is None

    def test_that_ends_stores(self, kind: str, state: State) -> None:
        with Turn():
            with WRITERS[kind](state.path("f")) as f:
                _fill(f)
            assert state.get("f")

    def test_exit_with_zero_stores(self, kind: str, state: State) -> None:
        with Turn():
            with pytest.raises(SystemExit), WRITERS[kind](state.path("f")) as f:
                _fill(f)
                raise SystemExit
            assert state.get("f") is not None


def test_an_aborted_update_leaves_what_was_there(state: State) -> None:
    state.put("f", b"old")
    with Turn():
        for mode in ("w", "r+", "a"):
            with pytest.raises(Boom), open(state.path("f"), mode) as f:
                f.write("new")
                f.flush()
                raise Boom
            assert state.get("f") == b"old"
            with open(state.path("f")) as f:
                assert f.read() == "old"


def test_an_explicit_close_stores_whatever_comes_then(state: State) -> None:
    with Turn(), pytest.raises(Boom):
        f = open(state.path("f"), "w")
        try:
            f.write("kept")
            raise Boom
        finally:
            f.close()
    assert state.get("f") == b"kept"


def test_an_aborted_x_takes_its_file_away_only_if_it_is_still_its_own(state: State) -> None:
    with Turn():
        with pytest.raises(Boom), open(state.path("lock"), "x") as f:
            assert state.get("lock") == b""
            f.write("x")
            raise Boom
        assert state.get("lock") is None
        with pytest.raises(Boom), open(state.path("lock"), "x"):
            state.put("lock", b"taken over")
            raise Boom
        assert state.get("lock") == b"taken over"


class TestEndOfTurn:
    def test_open_files_are_committed_and_live_on(self, state: State) -> None:
        with Turn() as t:
            f = open(state.path("f"), "w")
            f.write("one")
            t.commit()
        assert state.get("f") == b"one"
        f.write(" two")
        f.close()
        assert state.get("f") == b"one two"

    def test_discarded_files_are_closed(self, state: State) -> None:
        with Turn() as t:
            f, g = open(state.path("f"), "w"), open(state.path("x"), "x")
            f.write("x")
            f.flush()
            t.discard()
        assert f.closed
        assert g.closed
        assert state.get("f") is None
        assert state.get("x") is None

    def test_flushed_appends_survive_a_discard(self, state: State) -> None:
        with Turn() as t:
            f = open(state.path("log"), "a")
            f.write("flushed\n")
            f.flush()
            f.write("not flushed\n")
            t.discard()
        assert state.get("log") == b"flushed\n"
        assert f.closed

    def test_the_first_failure_is_raised_after_all_were_tried(self, cas: State) -> None:
        cas.put("a", b"1")
        with Turn() as t:
            a, b = open(cas.path("a"), "w"), open(cas.path("b"), "w")
            a.write("mine")
            b.write("mine")
            cas.put("a", b"2")
            with pytest.raises(StateConflictError) as caught:
                t.commit()
            with pytest.raises(StateConflictError):
                a.close()
            b.close()
        assert caught.value.filename == cas.path("a")
        assert cas.get("b") == b"mine"

    def test_a_descriptor_left_open_is_committed(self, state: State) -> None:
        with Turn() as t:
            fd = os.open(state.path("f"), os.O_WRONLY | os.O_CREAT)
            os.write(fd, b"x")
            t.commit()
        assert state.get("f") == b"x"
        os.close(fd)

    def test_a_process_wide_log_is_stored_at_each_turn_s_end(self, state: State) -> None:
        handler = logging.FileHandler(state.path("log"))
        logger = logging.Logger("x")
        logger.addHandler(handler)
        for n in range(3):
            with Turn() as t:
                logger.warning("turn %d", n)
                if n == 1:
                    t.discard()
                else:
                    t.commit()
            assert (state.get("log") or b"").count(b"\n") == n + 1
        handler.close()

    @pytest.mark.parametrize("opened_in", ["no turn", "an earlier turn"])
    def test_a_process_wide_log_is_rotated_by_a_turn(self, opened_in: str, state: State) -> None:
        os.makedirs(state.path("logs"))
        logger = logging.Logger("rotated")
        with turn() if opened_in == "an earlier turn" else contextlib.nullcontext():
            handler = logging.handlers.RotatingFileHandler(state.path("logs/log"), maxBytes=11, backupCount=3)
            logger.addHandler(handler)
            logger.info("first")
        with turn():
            for word in ("2nd", "third", "fourth", "fifth"):
                logger.info(word)
        handler.close()
        names = ("log.3", "log.2", "log.1", "log")
        assert [state.get(f"logs/{name}") for name in names] == [b"first\n2nd\n", b"third\n", b"fourth\n", b"fifth\n"]

    def test_what_a_turn_writes_to_a_file_of_an_earlier_one_is_its_own_write(self, state: State) -> None:
        with turn():
            f = open(state.path("f"), "w")
            f.write("one")
        with turn():
            assert open(state.path("f")).read() == "one"
            f.write(" two")
            f.close()
            os.remove(state.path("f"))
        assert state.get("f") is None

    def test_a_process_wide_shelf_is_stored_at_each_turn_s_end(self, state: State) -> None:
        import shelve

        shelf = shelve.open(state.path("s"), writeback=True)
        with Turn() as t:
            shelf["k"] = [1]
            t.commit()
        with Turn() as t:
            shelf["k"].append(2)
            t.commit()
        with Turn(), shelve.open(state.path("s"), "r") as other:
            assert other["k"] == [1, 2]
        shelf.close()

    def test_a_shelf_left_open_in_its_turn(self, state: State) -> None:
        import shelve

        with Turn() as t:
            shelf = shelve.open(state.path("s"))
            shelf["k"] = 1
            t.commit()
        with Turn(), shelve.open(state.path("s"), "r") as other:
            assert other["k"] == 1
        shelf.close()

    def test_a_file_collected_without_close_is_stored(self, state: State) -> None:
        with Turn() as t:
            open(state.path("f"), "w").write("text")
            open(state.path("g"), "wb", buffering=0).write(b"raw")
            gc.collect()
            assert state.get("f") == b"text"
            assert state.get("g") == b"raw"
            t.commit()

    @pytest.mark.parametrize(("mode", "buffering"), [("w", -1), ("wb", -1), ("wb", 0)])
    def test_a_failure_of_a_collected_file_fails_the_turn(self, mode: str, buffering: int, cas: State) -> None:
        cas.put("f", b"1")
        before = endings.failures["collected"]
        with Turn() as t:
            f = open(cas.path("f"), mode, buffering=buffering)
            f.write("mine" if mode == "w" else b"mine")
            cas.put("f", b"2")
            del f
            gc.collect()
            with pytest.raises(StateConflictError):
                t.commit()
        assert endings.failures["collected"] == before + 1

    def test_stored_tells_whether_anything_durable_happened(self, state: State) -> None:
        state.put("f", b"1")
        with Turn() as t:
            with open(state.path("f")) as f:
                f.read()
            os.listdir(state.root)
            assert not t.stored
            f = open(state.path("g"), "w")
            assert not t.stored
            f.close()
            assert t.stored
        for change in (
            lambda: os.mkdir(state.path("d")),
            lambda: os.remove(state.path("f")),
            lambda: os.rename(state.path("g"), state.path("h")),
        ):
            with Turn() as t:
                change()
                assert t.stored

    def test_context_manager(self, state: State) -> None:
        with turn():
            f = open(state.path("f"), "w")
            f.write("x")
        assert state.get("f") == b"x"
        with pytest.raises(Boom), turn():
            g = open(state.path("g"), "w")
            g.write("x")
            raise Boom
        assert state.get("g") is None
        f.close()

    def test_without_files_it_does_nothing(self) -> None:
        with Turn(process_wide=True) as t:
            t.commit()
        with Turn() as t:
            t.discard()
            t.cancel()
        assert not t.stored


class TestCancel:
    def test_later_calls_raise(self, state: State) -> None:
        with Turn() as t:
            f = open(state.path("f"), "w")
            f.write("x")
            log = open(state.path("log"), "a")
            log.write("line\n")
            log.flush()
            t.cancel()
            calls: list[Callable[[], object]] = [
                lambda: open(state.path("g")),
                lambda: os.stat(state.path("g")),
                lambda: os.listdir(state.root),
                lambda: os.remove(state.path("f")),
                lambda: os.path.getsize(state.path("f")),
                f.flush,
            ]
            for call in calls:
                with pytest.raises(OSError) as caught:
                    call()
                assert caught.value.errno == errno.ECANCELED
            with pytest.raises(OSError):
                f.close()
        assert state.get("f") is None
        assert state.get("log") == b"line\n"

    def test_from_another_thread(self, state: State) -> None:
        started, go, seen = threading.Event(), threading.Event(), []

        def work() -> None:
            with t:
                started.set()
                go.wait(10)
                try:
                    open(state.path("f"), "w")
                except OSError as error:
                    seen.append(error.errno)

        t = Turn()
        thread = threading.Thread(target=work)
        thread.start()
        started.wait(10)
        t.cancel()
        go.set()
        thread.join()
        assert seen == [errno.ECANCELED]


class TestWork:
    """Work belongs to the turn that submitted it."""

    def test_threads(self, state: State) -> None:
        with Turn() as t:
            f = open(state.path("f"), "w")
            f.write("uncommitted")
            f.flush()
            seen: list[str] = []

            def work() -> None:
                with open(state.path("f")) as g:
                    seen.append(g.read())

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            assert seen == ["uncommitted"]
            t.discard()

    def test_executors(self, state: State) -> None:
        def size() -> int:
            return os.path.getsize(state.path("f"))

        with ThreadPoolExecutor(1) as pool:
            state.put("f", b"1")
            assert pool.submit(size).result() == 1
            for text in ("one", "longer"):
                with Turn() as t:
                    f = open(state.path("f"), "w")
                    f.write(text)
                    f.flush()
                    assert pool.submit(size).result() == len(text)
                    assert list(pool.map(lambda _: size(), range(2))) == [len(text)] * 2
                    t.discard()
            assert pool.submit(size).result() == 1

    async def test_tasks_and_to_thread(self, state: State) -> None:
        import asyncio

        def size() -> int:
            return os.path.getsize(state.path("f"))

        async def task() -> int:
            return size()

        state.put("f", b"1")
        with Turn() as t:
            f = open(state.path("f"), "w")
            f.write("four")
            f.flush()
            loop = asyncio.get_running_loop()
            assert await asyncio.create_task(task()) == 4
            assert await asyncio.to_thread(size) == 4
            assert await loop.run_in_executor(None, size) == 4
            t.discard()
        assert await asyncio.to_thread(size) == 1

    async def test_an_executor_outside_turns_keeps_the_task_s_tokens(self, cas: State) -> None:
        import asyncio

        def read() -> str:
            with open(cas.path("f")) as f:
                return f.read()

        def write() -> None:
            with open(cas.path("f"), "w") as f:
                f.write("mine")

        cas.put("f", b"1")
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
            await loop.run_in_executor(one, read)
            cas.put("f", b"2")
            with pytest.raises(StateConflictError):
                await loop.run_in_executor(two, write)

    def test_a_thread_that_outlives_its_turn_keeps_its_tokens(self, cas: State) -> None:
        cas.put("f", b"1")
        go, outcome = threading.Event(), []

        def work() -> None:
            with open(cas.path("f")) as f:
                f.read()
            ready.set()
            go.wait(10)
            try:
                with open(cas.path("f"), "w") as f:
                    f.write("late")
            except StateConflictError:
                outcome.append("conflict")

        ready = threading.Event()
        with Turn() as t:
            thread = threading.Thread(target=work)
            thread.start()
            ready.wait(10)
            t.commit()
        cas.put("f", b"2")
        go.set()
        thread.join()
        assert outcome == ["conflict"]

    def test_process_wide_turns_own_what_has_none(self, state: State) -> None:
        begin, done = threading.Event(), threading.Event()

        def background() -> None:
            begin.wait(10)
            held.append(open(state.path("f"), "w"))
            held[0].write("from a thread of the process")
            done.set()

        held: list[Any] = []
        thread = threading.Thread(target=background)
        thread.start()
        with Turn(process_wide=True) as t:
            begin.set()
            done.wait(10)
            t.commit()
        thread.join()
        assert state.get("f") == b"from a thread of the process"
        held[0].close()


def test_appends_outside_turns_are_stored_within_a_second(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = threading.Event()
    real = state.remote.append

    def append(key: bytes, data: bytes) -> tuple[str, str | None]:
        result = real(key, data)
        stored.set()
        return result

    monkeypatch.setattr(state.remote, "append", append)
    f = open(state.path("log"), "a")
    f.write("line\n")
    f.flush()
    assert stored.wait(5)
    assert state.get("log") == b"line\n"
    f.close()


def test_a_failed_upload_raises_from_close(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_args: object, **_kwargs: object) -> None:
        raise state.remote.failure("unavailable", "no proxy", b"")

    with Turn():
        f = open(state.path("f"), "w")
        f.write("x")
        monkeypatch.setattr(state.remote, "write", unavailable)
        with pytest.raises(StateUnavailableError) as caught:
            f.close()
        assert f.closed
        f.close()
    assert caught.value.filename == state.path("f")
