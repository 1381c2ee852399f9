"""`asya run` with real proxies and runtimes: state that lasts, kills, stops, and errors that say what to do."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.asya_run import Running, asya
from support.servers import RedisServer

COUNTER = """
import json, os

def process(payload):
    path = payload.get("path", "/state/count")
    try:
        with open(path) as f:
            count = int(f.read())
    except FileNotFoundError:
        count = 0
    with open(path, "w") as f:
        f.write(str(count + 1))
    print("counted", count + 1)
    return {"count": count + 1, "pid": os.getpid(), "cwd": os.getcwd(), "greeting": os.environ.get("GREETING")}
"""

WAITS = """
import pathlib, time

def process(payload):
    with open("/state/kept", "w") as f:
        pathlib.Path("begun").touch()
        while not pathlib.Path("go-on").exists():
            time.sleep(0.01)
        f.write("yes")
    return {"stored": True}
"""


def ended(pid):
    """Gone, or a zombie that init collects in its own time."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def actor(tmp_path, spec="", handler=COUNTER, state="{backend: s3, bucket: bbb}"):
    """The path of a manifest in a directory of its own, with its handler beside it."""
    directory = tmp_path / "actor"
    directory.mkdir(exist_ok=True)
    (directory / "agent.py").write_text(handler)
    manifest = directory / "actor.yaml"
    manifest.write_text(
        "apiVersion: asya.sh/v1alpha1\nkind: AsyncActor\nmetadata: {name: counter}\nspec:\n"
        "  image: i\n  handler: agent.process\n" + spec + (f"  stateProxy: {state}\n" if state else "")
    )
    return manifest


@pytest.fixture
def state(tmp_path):
    return ["--state", str(tmp_path / "state")]


def test_state_lasts_across_turns_restarts_and_kills(tmp_path, state):
    manifest = actor(tmp_path)
    with Running(manifest, *state) as run:
        run.ready()
        status, first = run.call({})
        assert (status, first["count"]) == (200, 1)
        assert first["cwd"] == str(manifest.parent)
        run.wait_for(r"counter/runtime +\| counted 1")
        os.kill(run.pid("counter/proxy"), signal.SIGKILL)
        assert run.call({})[1]["count"] == 2
        run.wait_for(r"counter/proxy +\| ended \(killed by SIGKILL\), starting it again")
        os.kill(first["pid"], signal.SIGKILL)
        run.wait_for(r"counter/runtime +\| ready again")
        assert run.call({})[1]["count"] == 3
        # Looking into the state while the actor runs.
        assert asya("state", "cat", "count", *state).stdout == "3"
        assert run.stop() == 0
        assert run.lines[-1].endswith("| stopped")
    with Running(manifest, *state) as run:
        assert run.ready().call({})[1]["count"] == 4
        assert run.stop(signal.SIGTERM) == 0


def test_two_replicas_share_the_state_and_have_their_own_processes(tmp_path, state):
    with Running(actor(tmp_path), *state, replicas=2) as run:
        run.wait_for("asya +| warning: .*consistency: lww")
        run.ready()
        first, second = run.call({}, replica=1)[1], run.call({}, replica=2)[1]
        assert [first["count"], second["count"]] == [1, 2]
        assert first["pid"] != second["pid"]
        assert run.call({}, replica=1)[1]["count"] == 3
        assert len(run.pids()) == 4
        assert run.stop() == 0


def test_an_actor_without_state_runs_plain(tmp_path, state):
    handler = "import os\ndef process(payload):\n    return {'there': os.path.exists('/state/x'), **payload}\n"
    with Running(actor(tmp_path, handler=handler, state=""), *state) as run:
        assert run.ready().call({"a": 1}) == (200, {"there": False, "a": 1})
        assert len(run.pids()) == 1
        assert run.stop() == 0
    assert not Path(state[1]).exists()


def test_several_mounts_are_several_places(tmp_path, state):
    mounts = "{backend: s3, bucket: bbb, mounts: [{name: cache, mountPath: /cache, backend: redis, consistency: cas}]}"
    with Running(actor(tmp_path, state=mounts), *state) as run:
        run.ready()
        assert run.call({})[1]["count"] == 1
        assert run.call({"path": "/cache/count"})[1]["count"] == 1
        assert run.call({"path": "/cache/count"})[1]["count"] == 2
        assert run.stop() == 0
    assert asya("state", "cat", "count", *state).stdout == "1"
    assert asya("state", "cat", "count", "--mount", "cache", *state).stdout == "2"


def test_memory_is_gone_with_its_proxy(tmp_path):
    with Running(actor(tmp_path), "--backend", "memory:", cwd=tmp_path) as run:
        run.ready()
        assert [run.call({})[1]["count"], run.call({})[1]["count"]] == [1, 2]
        os.kill(run.pid("counter/proxy"), signal.SIGKILL)
        run.wait_for("counter/proxy +| ready again")
        assert run.call({})[1]["count"] == 1
        assert run.stop() == 0
    assert not (tmp_path / ".asya").exists()


def test_env_and_secrets_come_from_here(tmp_path, state):
    spec = (
        "  env:\n  - {name: WHO, valueFrom: {secretKeyRef: {name: people, key: ada}}}\n"
        "  - {name: GREETING, value: 'hello $(WHO)'}\n"
    )
    manifest = actor(tmp_path, spec)
    result = asya("run", str(manifest), *state, environ={k: v for k, v in os.environ.items() if k != "WHO"})
    assert result.returncode == 3
    assert "WHO (in a cluster: key ada of Secret people)" in result.stderr
    assert result.stderr.count("\n") == 1
    with Running(manifest, *state, environ={**os.environ, "WHO": "ada"}) as run:
        assert run.ready().call({})[1]["greeting"] == "hello ada"
        assert run.stop() == 0


def test_killing_asya_run_leaves_no_orphans(tmp_path, state):
    with Running(actor(tmp_path), *state) as run:
        run.ready()
        pids = run.pids()
        directory = Path(run.wait_for(r'sockets=\["(/[^"]+)/1/state\.sock').group(1))
        run.process.kill()
        run.process.wait(60)
        # They were told by the kernel, and drain.
        for pid in pids:
            wait_until(lambda pid=pid: ended(pid))
        shutil.rmtree(directory)  # nobody was left to do it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_a_run_from_outside_lets_its_turn_finish(number, tmp_path, state):
    manifest = actor(tmp_path, handler=WAITS)
    with Running(manifest, *state) as run, ThreadPoolExecutor(1) as pool:
        turn = pool.submit(run.ready().call, {})
        wait_until(lambda: (manifest.parent / "begun").exists())
        run.process.send_signal(number)
        run.wait_for("draining turns=1")
        (manifest.parent / "go-on").touch()
        assert turn.result(60) == (200, {"stored": True})
        assert run.stop(number) == 0
    assert asya("state", "cat", "kept", *state).stdout == "yes"


def test_a_reader_that_leaves_ends_the_run_and_nothing_stays_behind(tmp_path, state, free_port):
    manifest = actor(tmp_path)
    argv = [sys.executable, "-m", "asya_cli", "run", str(manifest), *state, "--port", str(free_port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline()]
        while " is ready: " not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        process.stdout.close()
        # Something has to be said before the loss can be noticed.
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{free_port}/", b"no json", timeout=60)
        assert process.wait(60) == 1
        assert process.stderr.read() == "Error: stopped, because the output cannot be written any more: Broken pipe\n"
    pids = [int(line.rpartition(" ")[2]) for line in lines if "started, pid" in line]
    assert len(pids) == 2
    assert all(ended(pid) for pid in pids)


def test_a_handler_that_cannot_be_imported_is_shown(tmp_path, state):
    with Running(actor(tmp_path, handler="import nothing_of_that_name\n"), *state) as run:
        assert run.process.wait(60) == 1
        run._reader.join(60)
        text = "\n".join(run.lines)
        assert "counter/runtime ended before it was ready (exit code" in text
        assert "nothing_of_that_name" in text.partition("ended before it was ready")[2]
        assert not [pid for pid in run.pids() if Path(f"/proc/{pid}").exists()]


def test_a_port_in_use_is_named(tmp_path, state):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = asya("run", str(actor(tmp_path)), *state, "--port", str(port))
    assert result.returncode == 3
    assert f"port {port} cannot be had" in result.stderr
    assert "--port" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["nowhere.yaml"], 2, "nowhere.yaml: No such file"),
        (["."], 2, "."),
        (["actor.yaml", "--backend", "postgres://h"], 2, "expected sqlite, manifest"),
        (["actor.yaml", "--backend", "memory:", "--replicas", "2"], 2, "memory of its own"),
        (["actor.yaml", "--actor", "other"], 2, "no AsyncActor is called 'other'"),
        (["actor.yaml", "--replicas", "0"], 2, "--replicas"),
        (["actor.yaml", "--port", "65535", "--replicas", "2"], 2, "above 65535"),
        (["actor.yaml", "--state", "bad.yaml"], 3, "bad.yaml (File exists): choose another --state DIR"),
        (["actor.yaml", "--state", "/proc/state"], 3, "/proc/state (No such file or directory): choose"),
        (["bad.yaml"], 2, "spec.handlr: no such field; did you mean 'handler'?"),
        (["two.yaml"], 2, "which one? --actor counter, --actor other"),
    ],
)
def test_refusals(tmp_path, words, code, reason):
    manifest = actor(tmp_path)
    text = manifest.read_text()
    (manifest.parent / "bad.yaml").write_text(text.replace("handler:", "handlr:"))
    (manifest.parent / "two.yaml").write_text(text + "---\n" + text.replace("counter", "other"))
    result = asya("run", *words, cwd=manifest.parent)
    assert result.returncode == code
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def test_a_url_names_a_server_for_run_and_state_alike(tmp_path):
    manifest = actor(tmp_path)
    with RedisServer(tmp_path / "redis") as server:
        backend = ["--backend", server.url]
        with Running(manifest, *backend, replicas=2, cwd=tmp_path) as run:
            run.ready()
            assert [run.call({}, replica=1)[1]["count"], run.call({}, replica=2)[1]["count"]] == [1, 2]
            assert run.stop() == 0
        result = asya("state", "cat", "count", *backend, "--manifest", str(manifest))
        assert (result.stdout, result.stderr) == ("2", "")
        result = asya("state", "ls", "--backend", f"{server.url}?bucket=bbb", "--actor", "counter")
        assert (result.stdout.split()[-1], result.stderr) == ("count", "")
    assert not (tmp_path / ".asya").exists()


IMPATIENT = "{backend: redis, requestTimeout: 1s, env: [{name: STATE_REQUEST_TIMEOUT, value: 500ms}]}"


def test_an_outage_is_an_error_of_the_turn_and_no_absence(tmp_path):
    with RedisServer(tmp_path / "redis") as server:
        with Running(actor(tmp_path, state=IMPATIENT), "--backend", server.url) as run:
            assert run.ready().call({})[1]["count"] == 1
            server.kill()
            status, body = run.call({})
            assert (status, body["error"]) == (500, "processing_error")
            assert body["details"]["type"].endswith("StateUnavailableError")
            server.start()
            assert run.call({})[1]["count"] == 2
            assert run.stop() == 0


def test_a_backend_that_is_away_at_the_start_is_told_and_stopping_is_still_clean(tmp_path, free_port):
    with Running(actor(tmp_path, state=IMPATIENT), "--backend", f"redis://127.0.0.1:{free_port}") as run:
        run.wait_for(rf"counter/proxy +\| .*{free_port}")
        assert run.stop() == 0
        assert not [line for line in run.lines if "counter/runtime" in line]


def test_json_state_for_programs(tmp_path, state):
    with Running(actor(tmp_path), *state) as run:
        run.ready().call({"path": "/state/deep/er/count"})
        assert run.stop() == 0
    (entry,) = json.loads(asya("state", "ls", "--json", *state).stdout)
    assert (entry["key"], entry["size"]) == ("deep/er/count", 1)
