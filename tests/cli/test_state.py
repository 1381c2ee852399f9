"""`asya state`: what is in the store, as a person and as a program reads it. Seeded through the store itself."""

import asyncio
import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from asya_cli.__main__ import main
from asya_proxy.stores.base import Body, Change, StoreConfig
from asya_proxy.stores.sqlite import SqliteStore

MANIFEST = """
apiVersion: asya.sh/v1alpha1
kind: AsyncActor
metadata: {name: chat-agent}
spec:
  image: i
  handler: agent.process
  stateProxy:
    backend: s3
    bucket: bbb
    mounts: [{name: cache, mountPath: /cache, backend: s3, bucket: bbb}]
"""


def seed(directory, prefix, files):
    async def put_all():
        store = SqliteStore(StoreConfig("state", prefix, {"SQLITE_DIR": str(directory)}))
        await store.connect()
        for number, (key, content) in enumerate(files.items()):
            await store.put(key, Body(content), Change(f"write-{prefix}-{number}"))
        await store.close()

    asyncio.run(put_all())


@pytest.fixture
def state(tmp_path):
    seed(
        tmp_path,
        "default/chat-agent/",
        {
            b"history.json": b'[{"role": "user"}]',
            b"ada/history.json": b"[]",
            b"ada/notes.txt": b"x" * 1234,
            b"raw.bin": b"\xff\x00\n",
            b".asya/probe": b"ours",
            b"bad\x1bname\xff": b"!",
        },
    )
    seed(tmp_path, "default/chat-agent@cache/", {b"hit": b"1"})
    return tmp_path


def asya(*words):
    result = CliRunner().invoke(main, words, prog_name="asya")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def ls(state, *words):
    return asya("state", "ls", "--state", str(state), *words)


def cat(state, *words):
    return asya("state", "cat", "--state", str(state), *words)


def names(result):
    assert result.exit_code == 0, result.output
    return [line.split("  ")[-1] for line in result.output.splitlines()]


def test_ls_lists_all_files_but_our_own_records(state):
    result = ls(state)
    assert names(result) == ["ada/history.json", "ada/notes.txt", "bad%1Bname%FF", "history.json", "raw.bin"]
    assert re.fullmatch(r"   2  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ada/history\.json", result.output.splitlines()[0])
    assert result.output.splitlines()[1].startswith("1234  ")


@pytest.mark.parametrize("path", ["ada", "ada/", "/state/ada", "/state/ada/"])
def test_ls_of_a_directory(state, path):
    assert names(ls(state, path)) == ["ada/history.json", "ada/notes.txt"]


@pytest.mark.parametrize("path", ["history.json", "/state/history.json"])
def test_ls_of_a_file(state, path):
    assert names(ls(state, path)) == ["history.json"]


def test_ls_json_is_for_programs(state):
    (entry, *rest) = json.loads(ls(state, "--json").output)
    assert len(rest) == 4
    assert set(entry) == {"path", "key", "size", "mtime", "etag"}
    assert (entry["key"], entry["size"]) == ("ada/history.json", 2)
    assert entry["mtime"].endswith("+00:00")
    assert entry["etag"]


def test_a_path_of_the_json_is_one_that_cat_takes(state):
    seed(state, "default/other/", {"dir/ünï %20.txt".encode(): b"found"})
    (entry,) = json.loads(ls(state, "--actor", "other", "--json").output)
    assert entry["path"] == "/state/dir/ünï %20.txt"
    assert cat(state, "--actor", "other", entry["path"]).output == "found"


def test_cat_gives_the_bytes_as_they_are(state):
    assert cat(state, "raw.bin").stdout_bytes == b"\xff\x00\n"
    assert cat(state, "/state/history.json").stdout_bytes == b'[{"role": "user"}]'


def test_cat_json_has_content_and_version(state):
    found = json.loads(cat(state, "history.json", "--json").output)
    assert found["content"] == '[{"role": "user"}]'
    assert found["etag"] == json.loads(ls(state, "history.json", "--json").output)[0]["etag"]
    assert json.loads(cat(state, "raw.bin", "--json").output)["content_base64"] == "/wAK"


@pytest.mark.parametrize("command", [ls, cat])
def test_what_is_not_there_is_code_5(state, command):
    result = command(state, "nothing.json")
    assert result.exit_code == 5
    assert "nothing.json: there is no such state file" in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/other/x", "'/other/x' is not below /state"),
        ("../x", "'..' segment"),
        (".asya/probe", "reserved"),
        ("", "which file"),
    ],
)
def test_paths_that_cannot_be(state, path, reason):
    result = cat(state, path)
    assert (result.exit_code, reason in result.output) == (2, True), result.output


def test_a_further_mount(state, tmp_path):
    assert names(ls(state, "--mount", "cache")) == ["hit"]
    manifest = tmp_path / "actor.yaml"
    manifest.write_text(MANIFEST)
    assert names(ls(state, "--manifest", str(manifest), "--mount", "cache")) == ["hit"]
    assert cat(state, "--manifest", str(manifest), "--mount", "cache", "/cache/hit").stdout_bytes == b"1"
    result = ls(state, "--manifest", str(manifest), "--mount", "cash")
    assert (result.exit_code, "chat-agent has state, cache" in result.output) == (2, True)


def test_several_actors_must_be_told_apart(state):
    seed(state, "default/other/", {b"x": b"1"})
    seed(state, "team/other/", {b"y": b"1"})
    result = ls(state)
    assert (result.exit_code, "--actor chat-agent, --actor other" in result.output) == (2, True)
    assert names(ls(state, "--actor", "other")) == ["x"]
    assert names(ls(state, "--namespace", "team")) == ["y"]
    assert ls(state, "--namespace", "nobody").exit_code == 5


def test_an_actor_that_has_stored_nothing_yet_lists_nothing(state):
    seed(state, "default/new/", {b".asya/probe": b"ours"})
    result = ls(state, "--actor", "new")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    ("words", "prefix"), [(["--actor", "chat-agnet"], "default/chat-agnet/"), (["--mount", "cash"], "chat-agent@cash/")]
)
def test_an_actor_or_mount_that_was_never_there_is_code_5(state, words, prefix):
    result = ls(state, *words, "--json")
    assert result.exit_code == 5
    assert prefix in result.output
    assert "--actor, --namespace or --mount" in result.output


def test_output_that_cannot_be_written_is_one_line(state):
    argv = [sys.executable, "-m", "asya_cli", "state", "ls", "--state", str(state)]
    with open("/dev/full", "w") as full:
        result = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (
        1,
        "Error: the output cannot be written: No space left on device\n",
    )


def test_looking_makes_nothing(tmp_path):
    result = ls(tmp_path / "nowhere")
    assert (result.exit_code, "there is no state in" in result.output) == (5, True)
    assert list(tmp_path.iterdir()) == []


def test_a_backend_that_does_not_answer_is_code_4(free_port):
    result = asya("state", "ls", "--backend", f"nats://127.0.0.1:{free_port}?bucket=b", "--actor", "a")
    assert result.exit_code == 4
    assert "nats bucket b" in result.output


def test_options_that_do_not_go_together(state):
    result = ls(state, "--backend", "manifest")
    assert (result.exit_code, "needs --manifest" in result.output) == (2, True)
    assert ls(state, "--backend", "memory:").exit_code == 2


def test_manifest_without_state(state, tmp_path):
    manifest = tmp_path / "plain.yaml"
    manifest.write_text(MANIFEST.split("  stateProxy")[0])
    result = ls(state, "--manifest", str(manifest))
    assert (result.exit_code, "has no stateProxy" in result.output) == (2, True)


def test_elsewhere_than_in_a_directory_the_actor_must_be_named():
    result = asya("state", "ls", "--backend", "redis://127.0.0.1:1?bucket=b")
    assert (result.exit_code, "--actor NAME or --manifest FILE" in result.output) == (2, True)
