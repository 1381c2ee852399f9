"""Tokens and marks in turns and outside: what a change relies on, and what makes it fail."""

# ruff: noqa: SIM115

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asya_shim import StateConflictError, StateUnavailableError, Turn, lookups, tokens
from asya_shim.lookups import absent
from support.state_proxy import State, child_environ


def write(path: str, text: str) -> None:
    with open(path, "w") as f:
        f.write(text)


def read(path: str) -> str:
    with open(path) as f:
        return f.read()


def outage(state: State, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on the next request finds no proxy; call the result to end it."""

    def unavailable(*_args: object, **_kwargs: object) -> None:
        raise state.remote.failure("unavailable", "no proxy", b"")

    names = ("stat", "read", "list")
    for name in names:
        monkeypatch.setattr(state.remote, name, unavailable)

    def over() -> None:
        for name in names:
            monkeypatch.delattr(state.remote, name)

    return over


class TestConflicts:
    def test_content_read_is_what_a_write_relies_on(self, cas: State) -> None:
        cas.put("f", b"1")
        with Turn():
            assert read(cas.path("f")) == "1"
            cas.put("f", b"other pod")
            with pytest.raises(StateConflictError) as caught:
                write(cas.path("f"), "mine")
        assert caught.value.errno == errno.ESTALE
        assert isinstance(caught.value, FileExistsError)
        assert caught.value.filename == cas.path("f")
        assert cas.get("f") == b"other pod"

    def test_first_read_counts(self, cas: State) -> None:
        cas.put("f", b"1")
        with Turn():
            read(cas.path("f"))
            cas.put("f", b"2")
            assert read(cas.path("f")) == "2"
            with pytest.raises(StateConflictError):
                write(cas.path("f"), "mine")

    def test_stale_until_read_anew(self, cas: State) -> None:
        cas.put("f", b"1")
        with Turn():
            read(cas.path("f"))
            cas.put("f", b"2")
            for _ in range(3):
                with pytest.raises(StateConflictError):
                    write(cas.path("f"), "mine")
            os.stat(cas.path("f"))
            with pytest.raises(StateConflictError):
                write(cas.path("f"), "mine")
            assert read(cas.path("f")) == "2"
            write(cas.path("f"), "mine")
        assert cas.get("f") == b"mine"

    def test_absence_learnt(self, cas: State) -> None:
        with Turn():
            assert not os.path.exists(cas.path("f"))
            cas.put("f", b"other pod")
            with pytest.raises(StateConflictError):
                write(cas.path("f"), "mine")
        assert cas.get("f") == b"other pod"

    def test_absence_learnt_by_failing_to_open(self, cas: State) -> None:
        with Turn():
            with pytest.raises(FileNotFoundError):
                open(cas.path("f"))
            cas.put("f", b"other pod")
            with pytest.raises(StateConflictError):
                write(cas.path("f"), "mine")

    def test_a_weak_token_is_replaced_by_the_first_read(self, cas: State) -> None:
        cas.put("f", b"1")
        with Turn():
            assert os.path.exists(cas.path("f"))
            cas.put("f", b"2")
            assert read(cas.path("f")) == "2"
            write(cas.path("f"), "mine")
        assert cas.get("f") == b"mine"

    def test_a_weak_token_conflicts_once(self, cas: State) -> None:
        cas.put("f", b"1")
        with Turn():
            os.stat(cas.path("f"))
            cas.put("f", b"2")
            with pytest.raises(StateConflictError):
                write(cas.path("f"), "mine")
            write(cas.path("f"), "mine")
        assert cas.get("f") == b"mine"

    def test_a_listing_gives_no_token(self, cas: State) -> None:
        cas.put("f", b"1")
        with Turn():
            assert os.listdir(cas.root) == ["f"]
            cas.put("f", b"2")
            write(cas.path("f"), "mine")
        assert cas.get("f") == b"mine"

    def test_opening_for_writing_observes(self, cas: State) -> None:
        cas.put("f", b"1")
        with Turn():
            f = open(cas.path("f"), "w")
            f.write("mine")
            cas.put("f", b"2")
            with pytest.raises(StateConflictError):
                f.close()
            assert f.closed

    def test_own_writes_move_it_along(self, cas: State) -> None:
        with Turn():
            for n in range(3):
                write(cas.path("f"), str(n))
            os.remove(cas.path("f"))
            write(cas.path("f"), "again")
            os.rename(cas.path("f"), cas.path("g"))
            write(cas.path("g"), "moved")
        assert cas.get("g") == b"moved"

    def test_delete_is_conditional(self, cas: State) -> None:
        cas.put("f", b"1")
        with Turn():
            read(cas.path("f"))
            cas.put("f", b"2")
            with pytest.raises(StateConflictError):
                os.remove(cas.path("f"))
        assert cas.get("f") == b"2"

    def test_replace_is_conditional_on_its_target(self, cas: State) -> None:
        cas.put("f", b"1")
        with Turn():
            read(cas.path("f"))
            write(cas.path("tmp"), "mine")
            cas.put("f", b"2")
            with pytest.raises(StateConflictError):
                os.replace(cas.path("tmp"), cas.path("f"))
        assert cas.get("f") == b"2"

    def test_deleted_and_created_again_is_another_file(self, cas: State) -> None:
        cas.put("f", b"1")
        with Turn():
            read(cas.path("f"))
            cas.pod.delete(cas.key("f"), if_version=cas.pod.stat(cas.key("f")).version)  # type: ignore[union-attr]
            cas.put("f", b"1")
            with pytest.raises(StateConflictError):
                write(cas.path("f"), "mine")

    def test_deleted_by_somebody_else(self, cas: State) -> None:
        cas.put("f", b"1")
        with Turn():
            read(cas.path("f"))
            cas.pod.delete(cas.key("f"), if_version=cas.pod.stat(cas.key("f")).version)  # type: ignore[union-attr]
            with pytest.raises(StateConflictError):
                write(cas.path("f"), "mine")
            with pytest.raises(StateConflictError):
                write(cas.path("f"), "mine")
            assert not os.path.exists(cas.path("f"))
            write(cas.path("f"), "mine")
        assert cas.get("f") == b"mine"

    def test_a_directory_of_that_name(self, state: State) -> None:
        state.put("d/f", b"1")
        for mode in ("w", "a", "x", "r+"):
            with Turn(), pytest.raises((IsADirectoryError, FileExistsError)):
                open(state.path("d"), mode).close()
        assert state.get("d/f") == b"1"

    def test_a_handle_is_dead_after_a_conflict(self, cas: State) -> None:
        cas.put("f", b"1")
        with Turn():
            f = open(cas.path("f"), "r+")
            f.read()
            cas.put("f", b"2")
            f.write("mine")
            f.flush()
            with pytest.raises(StateConflictError):
                os.fsync(f.fileno())
            f.write("more")
            with pytest.raises(StateConflictError):
                f.flush()
            with pytest.raises(StateConflictError):
                f.close()
        assert cas.get("f") == b"2"

    def test_x_created_by_somebody_else_is_file_exists(self, state: State) -> None:
        state.put("f", b"1")
        with Turn(), pytest.raises(FileExistsError) as caught:
            open(state.path("f"), "x")
        assert not isinstance(caught.value, StateConflictError)

    def test_lww_overwrites(self, lww: State) -> None:
        lww.put("f", b"1")
        with Turn():
            read(lww.path("f"))
            lww.put("f", b"2")
            write(lww.path("f"), "mine")
        assert lww.get("f") == b"mine"

    def test_a_retry_loop_that_reads_counts_right(self, cas: State) -> None:
        """Two turns at once, the loser reading anew: no increment is lost."""
        cas.put("n", b"0")
        path = cas.path("n")

        def increment_often() -> None:
            for _ in range(25):
                with Turn():
                    while True:
                        n = int(read(path))
                        try:
                            write(path, str(n + 1))
                            break
                        except FileExistsError:
                            continue

        threads = [threading.Thread(target=increment_often) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert cas.get("n") == b"75"


class TestAppends:
    def test_never_conflict(self, state: State) -> None:
        state.put("log", b"a\n")
        with Turn():
            read(state.path("log"))
            state.pod.append(state.key("log"), b"other\n")
            with open(state.path("log"), "a") as f:
                f.write("mine\n")
        assert state.get("log") == b"a\nother\nmine\n"

    def test_move_the_token_only_if_nothing_came_between(self, cas: State) -> None:
        cas.put("log", b"a\n")
        with Turn():
            read(cas.path("log"))
            with open(cas.path("log"), "a") as f:
                f.write("mine\n")
            write(cas.path("log"), "rewritten")
        assert cas.get("log") == b"rewritten"
        with Turn():
            read(cas.path("log"))
            cas.pod.append(cas.key("log"), b"other\n")
            with open(cas.path("log"), "a") as f:
                f.write("mine\n")
            with pytest.raises(StateConflictError):
                write(cas.path("log"), "rewritten")
        assert cas.get("log") == b"rewrittenother\nmine\n"

    def test_send_only_the_tail(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        state.put("log", b"x" * 1000)
        sent: list[bytes] = []
        real = state.remote.append
        monkeypatch.setattr(state.remote, "append", lambda key, data: (sent.append(bytes(data)), real(key, data))[1])
        with Turn(), open(state.path("log"), "a") as f:
            f.write("tail")
            assert f.tell() == 1004
        assert sent == [b"tail"]

    def test_through_a_descriptor_send_only_the_tail(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        state.put("log", b"x" * 1000)
        sent: list[bytes] = []
        real = state.remote.append
        monkeypatch.setattr(state.remote, "append", lambda key, data: (sent.append(bytes(data)), real(key, data))[1])
        with Turn():
            fd = os.open(state.path("log"), os.O_WRONLY | os.O_APPEND)
            os.write(fd, b"one")
            os.fsync(fd)
            os.write(fd, b"two")
            os.close(fd)
        assert sent == [b"one", b"two"]
        assert state.get("log") == b"x" * 1000 + b"onetwo"


class TestFailedLookups:
    """One transient failure, swallowed by the handler, never leads to an overwrite."""

    def test_read(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        state.put("history", b"[1, 2, 3]")
        path = state.path("history")
        with Turn():
            over = outage(state, monkeypatch)
            try:
                history = json.loads(read(path))
            except Exception:
                history = []
            over()
            for _ in range(2):
                with pytest.raises(StateUnavailableError) as caught:
                    write(path, json.dumps(history))
                assert caught.value.errno == errno.EIO
                assert caught.value.filename == path
            for change in (
                lambda: os.remove(path),
                lambda: os.replace(path, path + "2"),
                lambda: Path(path).unlink(),
            ):
                with pytest.raises(StateUnavailableError):
                    change()
            with open(path, "a") as f:
                f.write("\n")
            write(state.path("tmp"), "x")
            with pytest.raises(StateUnavailableError):
                os.replace(state.path("tmp"), path)
            assert read(path) == "[1, 2, 3]\n"
            write(path, "[]")
        assert state.get("history") == b"[]"

    @pytest.mark.parametrize(
        "look",
        [
            lambda p: os.path.exists(p),
            lambda p: os.stat(p),
            lambda p: os.path.isfile(p),
            lambda p: Path(p).exists(),
            lambda p: os.path.getsize(p),
        ],
        ids=["exists", "stat", "isfile", "Path.exists", "getsize"],
    )
    def test_other_lookups(self, look: Callable[[str], object], state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        state.put("f", b"precious")
        with Turn():
            over = outage(state, monkeypatch)
            with pytest.raises(StateUnavailableError):
                look(state.path("f"))
            over()
            with pytest.raises(StateUnavailableError):
                write(state.path("f"), "{}")
            assert os.path.exists(state.path("f"))  # tells that it is there, not what is in it
            with pytest.raises(StateUnavailableError):
                write(state.path("f"), "{}")
        assert state.get("f") == b"precious"

    def test_a_range_of_a_large_file(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lookups, "HELD", 1000)
        state.put("big", b"x" * 2000)
        path = state.path("big")
        with Turn():
            with open(path, "rb") as f:
                over = outage(state, monkeypatch)
                with pytest.raises(StateUnavailableError):
                    f.read()
                over()
                for change in (lambda: write(path, "[]"), lambda: os.remove(path)):
                    with pytest.raises(StateUnavailableError):
                        change()
                f.seek(0)
                assert f.read() == b"x" * 2000
            write(path, "[]")
        assert state.get("big") == b"[]"

    def test_absence_learnt_ends_it(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        with Turn():
            over = outage(state, monkeypatch)
            with pytest.raises(StateUnavailableError):
                read(state.path("f"))
            over()
            assert not os.path.exists(state.path("f"))
            write(state.path("f"), "first")
        assert state.get("f") == b"first"

    def test_is_forgotten_with_the_turn(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        state.put("f", b"1")
        with Turn():
            over = outage(state, monkeypatch)
            with pytest.raises(StateUnavailableError):
                read(state.path("f"))
            over()
        with Turn():
            write(state.path("f"), "2")
        assert state.get("f") == b"2"


class TestOutsideTurns:
    def test_latest_observation_counts(self, cas: State) -> None:
        cas.put("f", b"1")
        read(cas.path("f"))
        cas.put("f", b"2")
        assert read(cas.path("f")) == "2"
        write(cas.path("f"), "mine")
        assert cas.get("f") == b"mine"

    def test_another_thread_observed_it(self, cas: State) -> None:
        cas.put("f", b"1")
        read(cas.path("f"))
        cas.put("f", b"2")
        thread = threading.Thread(target=read, args=(cas.path("f"),))
        thread.start()
        thread.join()
        with pytest.raises(StateConflictError):
            write(cas.path("f"), "mine")

    async def test_another_task_observed_it(self, cas: State) -> None:
        import asyncio

        cas.put("f", b"1")
        read(cas.path("f"))
        cas.put("f", b"2")

        async def other() -> str:
            return read(cas.path("f"))

        assert await asyncio.create_task(other()) == "2"
        with pytest.raises(StateConflictError):
            write(cas.path("f"), "mine")

    def test_what_was_read_at_import_is_the_process_s(self, cas: State) -> None:
        program = f"""
import threading
path = {cas.path("f")!r}
known = int(open(path).read())
from asya_shim import Turn, StateConflictError

def turn(process_wide):
    global known
    with Turn(process_wide=process_wide):
        try:
            with open(path, "w") as f:
                f.write(str(known + 1))
            known += 1
            return known
        except StateConflictError:
            return "conflict"

print(turn(False), turn(True))
thread = threading.Thread(target=lambda: print(turn(False)))
thread.start(); thread.join()
input()
print(turn(False), turn(False))
with Turn():
    known = int(open(path).read())
    with open(path, "w") as f: f.write(str(known + 1))
    known += 1
print(turn(False))
"""
        cas.put("f", b"1")
        process = subprocess.Popen(
            [sys.executable, "-c", "import asya_shim; asya_shim.activate_from_environment()\n" + program],
            env=child_environ() | cas.proxy.environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdin is not None
        with process:
            assert process.stdout.readline() == "2 3\n"
            assert process.stdout.readline() == "4\n"
            cas.put("f", b"100")
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "conflict conflict\n"
            assert process.stdout.readline() == "102\n"

    def test_what_was_read_again_before_the_first_turn(self, cas: State) -> None:
        """Whoever read it may read it anew; what another thread reads makes no write of the process succeed."""
        program = f"""
import sys, threading
from asya_shim import Turn, StateConflictError
path, anew, by_another = {cas.path("f")!r}, {cas.path("anew")!r}, {cas.path("by another")!r}
def read(name):
    with open(name) as f: return f.read()
for name in (anew, by_another): read(name)
print("read", flush=True)
input()
read(anew)
thread = threading.Thread(target=read, args=(by_another,))
thread.start(); thread.join()
for name in (anew, by_another):
    with Turn():
        try:
            with open(name, "w") as f: f.write("mine")
            print("stored")
        except StateConflictError:
            print("conflict")
"""
        for name in ("anew", "by another"):
            cas.put(name, b"1")
        process = subprocess.Popen(
            [sys.executable, "-c", "import asya_shim; asya_shim.activate_from_environment()\n" + program],
            env=child_environ() | cas.proxy.environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "read\n"
            for name in ("anew", "by another"):
                cas.put(name, b"2")
            assert process.communicate("\n")[0].split() == ["stored", "conflict"]


class TestRenamedDirectories:
    def test_what_was_read_below_goes_with_them(self, cas: State) -> None:
        cas.put("d/read", b"1")
        cas.put("d/sub/read", b"1")
        cas.put("d/changed", b"1")
        with Turn():
            for name in ("d/read", "d/sub/read", "d/changed"):
                read(cas.path(name))
            assert not os.path.exists(cas.path("d/absent"))
            cas.put("d/changed", b"2")
            os.rename(cas.path("d"), cas.path("e"))
            write(cas.path("e/read"), "mine")
            write(cas.path("e/absent"), "mine")
            write(cas.path("d/read"), "another")
            with pytest.raises(StateConflictError):
                write(cas.path("e/changed"), "mine")
            cas.put("e/sub/read", b"2")
            with pytest.raises(StateConflictError):
                write(cas.path("e/sub/read"), "mine")
        assert [cas.get(f"e/{name}") for name in ("read", "absent", "changed", "sub/read")] == [
            b"mine",
            b"mine",
            b"2",
            b"2",
        ]

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_what_another_writes_while_they_are_renamed_is_not_taken_for_known(
        self, cas: State, monkeypatch: pytest.MonkeyPatch, when: str
    ) -> None:
        """Just before the rename is done, or just after it: in between nobody but the proxy can tell."""
        request = cas.remote.client.request

        def beside(head: bytes, *args: Any, **kwargs: Any) -> Any:
            renames = head.startswith(b"POST ")
            if renames and when == "before":
                cas.put("d/f", b"another's")
            response = request(head, *args, **kwargs)
            if renames and when == "after":
                cas.put("e/f", b"another's")
            return response

        monkeypatch.setattr(cas.remote.client, "request", beside)
        cas.put("d/f", b"1")
        with Turn():
            read(cas.path("d/f"))
            os.rename(cas.path("d"), cas.path("e"))
            with pytest.raises(StateConflictError):
                write(cas.path("e/f"), "mine")
            assert read(cas.path("e/f")) == "another's"
            write(cas.path("e/f"), "mine")
        assert cas.get("e/f") == b"mine"

    def test_what_they_put_where_nothing_was_is_no_conflict(self, cas: State) -> None:
        for name in ("d/f", "e/f"):
            cas.put(name, b"1")
        with Turn():
            os.unlink(cas.path("e/f"))
            assert not os.path.exists(cas.path("e/g"))
            os.rename(cas.path("d"), cas.path("e"))
            write(cas.path("e/f"), "mine")
            cas.put("e/g", b"another's")
            with pytest.raises(StateConflictError):
                write(cas.path("e/g"), "mine")
        assert cas.get("e/f") == b"mine"

    def test_what_could_not_be_read_below_is_not_overwritten_by_its_new_name(
        self, state: State, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state.put("d/f", b"1")
        with Turn():
            over = outage(state, monkeypatch)
            with pytest.raises(StateUnavailableError):
                read(state.path("d/f"))
            over()
            os.rename(state.path("d"), state.path("e"))
            with pytest.raises(StateUnavailableError):
                write(state.path("e/f"), "mine")
            write(state.path("d/f"), "mine")
        assert state.get("e/f") == b"1"

    def test_cost_one_request_however_much_is_known(self, cas: State) -> None:
        cas.put("d/f", b"1")
        with Turn():
            read(cas.path("d/f"))
            os.listdir(cas.path("d"))
            assert cas.trips(lambda: os.rename(cas.path("d"), cas.path("e"))) == 1

    def test_cost_nothing_more_where_nothing_is_known(self, state: State) -> None:
        state.put("d/f", b"1")
        with Turn():
            assert state.trips(lambda: os.rename(state.path("d"), state.path("e"))) == 2


class TestIsolation:
    def test_a_turn_sees_only_what_is_committed(self, state: State) -> None:
        state.put("f", b"old")
        with Turn():
            f = open(state.path("f"), "w")
            f.write("uncommitted")
            f.flush()
            with Turn():
                assert read(state.path("f")) == "old"
                assert os.path.getsize(state.path("f")) == 3
            assert read(state.path("f")) == "uncommitted"
            f.close()
            with Turn():
                assert read(state.path("f")) == "uncommitted"

    def test_a_new_file_of_another_turn_is_not_there(self, state: State) -> None:
        with Turn():
            f = open(state.path("new"), "w")
            f.flush()
            assert os.listdir(state.root) == ["new"]
            with Turn():
                assert not os.path.exists(state.path("new"))
            f.close()


def test_absent_names_the_path() -> None:
    from asya_shim.paths import MountPoint, Place

    point = MountPoint("state", "/state", None, 0)  # type: ignore[arg-type]
    assert absent(Place(point, b"k", "as/given")).filename == "as/given"


def test_what_is_remembered_of_a_process_without_turns_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_LIMIT", 10)
    monkeypatch.setattr(tokens, "begun", False)
    imported = tokens.Imported()
    ledger = tokens.ProcessLedger(imported)
    for number in range(100):
        ledger.saw(("state", b"%d" % number), "version")
    last = ("state", b"99")
    assert len(imported._observers) == len(imported._tokens) == 10
    ledger.saw(last, "newer")
    token = imported.token(last)
    assert token is not None
    assert token.version == "newer"
