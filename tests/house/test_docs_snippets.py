"""Every Python block of the documentation runs, below a real /state: a state proxy on SQLite, the shim in a child.

Each block needs its exercise here: a program that runs behind it and asserts what the page says. Manifests are read
by the operator's own model, and two of them are run.
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from asya_operator.api import load_manifest, warnings
from support.asya_run import Running
from support.documentation import DOCS, Block, all_blocks, blocks
from support.state_proxy import Proxy, child_environ

SNIPPETS = {f"{block.page}#{block.title}": block for block in all_blocks("python")}

EXERCISES = {
    "quickstart.md#my-agent/agent.py": """
assert process({"name": "Ada"})["visits"] == 1
assert process({"name": "Ada"})["visits"] == 2
""",
    "index.md#agent.py": """
assert process({"prompt": "I am Ada."})["response"]
assert [m["role"] for m in json.load(open("/state/history.json"))] == ["user", "assistant"]
""",
    "usage/conversations.md#agent.py": """
assert process({"session": "ada", "prompt": "Hello"})["response"] == "You have said 1 things."
assert process({"session": "ada", "prompt": "Again"})["response"] == "You have said 2 things."
assert process({"session": "ben", "prompt": "Hello"})["response"] == "You have said 1 things."
for bad in ("../ada", "", "a/b"):
    try:
        process({"session": bad, "prompt": "x"})
    except ValueError:
        pass
    else:
        raise AssertionError(bad)
try:
    open("/state/x/../../outside", "w")
except PermissionError:
    pass
else:
    raise AssertionError("left the mount")
""",
    "usage/conversations.md#sessions.py": """
for name in ("ada", "ben"):
    with open(f"/state/{name}/history.json", "w") as f:
        f.write("[]")
assert sessions() == ["ada", "ben"]
""",
    "usage/conversations.md#forget.py": """
import os
for name in ("ada", "ben"):
    with open(f"/state/{name}/history.json", "w") as f:
        f.write("[]")
forget("ada")
assert os.listdir("/state") == ["ben"]
""",
    "usage/logs.md#agent.py": """
import os
for number in range(3):
    assert process({"number": number}) == {"stored": True}
(name,) = os.listdir("/state/events")
assert [json.loads(line)["number"] for line in open(f"/state/events/{name}")] == [0, 1, 2]
""",
    "usage/logs.md#read.py": """
with open("/state/events/2026-11-25.jsonl", "a") as f:
    f.write('{"a": 1}\\n')
reading = events("2026-11-25")
first = next(reading)
append = "open('/state/events/2026-11-25.jsonl', 'a').write(sys.argv[1])"
import subprocess
import sys
subprocess.run([sys.executable, "-c", "import sys; " + append, '{"a": 2}\\n'], check=True)
assert [first, *reading] == [{"a": 1}]
assert list(events("2026-11-25")) == [{"a": 1}, {"a": 2}]
""",
    "usage/logs.md#logged.py": """
import asya_shim
with asya_shim.turn():
    process({"prompt": "Hello"})
assert open("/state/agent.log").read() == "asked for Hello\\n"
try:
    with asya_shim.turn():
        process({"prompt": "again"})
        other = open("/state/other", "w")
        other.write("x")
        raise RuntimeError
except RuntimeError:
    pass
import os
assert open("/state/agent.log").read() == "asked for Hello\\nasked for again\\n"
assert not os.path.exists("/state/other")
""",
    "usage/locks.md#once.py": """
assert once("job") is True
assert once("job") is False
try:
    with open("/state/done/failed", "x"):
        raise RuntimeError
except RuntimeError:
    pass
assert once("failed") is True
import fcntl
with open("/state/done/job") as f:
    try:
        fcntl.flock(f, fcntl.LOCK_EX)
    except OSError as error:
        import errno
        assert error.errno == errno.ENOSYS, error
    else:
        raise AssertionError("flock")
""",
    "usage/libraries.md#database.py": """
for text in ("one", "two"):
    with database() as connection:
        connection.execute("insert into notes values (?)", [text])
try:
    with database() as connection:
        connection.execute("insert into notes values ('three')")
        raise KeyError
except KeyError:
    pass
with database() as connection:
    assert list(connection.execute("select text from notes")) == [("one",), ("two",)]
try:
    sqlite3.connect(PATH)
except OSError as error:
    import errno
    assert (error.errno, error.filename) == (errno.ENOTSUP, PATH)
else:
    raise AssertionError("connect")
""",
    "usage/locks.md#lease.py": """
from concurrent.futures import ThreadPoolExecutor
import asya_shim
def turn(call, *arguments):
    with asya_shim.turn():
        return call("door", *arguments)
assert turn(acquire, "a", 60) is True
assert turn(acquire, "b", 60) is False
assert turn(acquire, "a", 60) is True
turn(release, "b")
assert turn(acquire, "b", 60) is False
turn(release, "a")
assert turn(acquire, "b", -1) is True
# Four turns take over what has ended: one wins.
for _ in range(20):
    with asya_shim.turn():
        with open("/state/locks/door", "w") as f:
            json.dump({"owner": "dead", "until": 0}, f)
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda name: turn(acquire, name, 60), "wxyz"))
    assert sum(won) == 1, won
""",
    "usage/conflicts.md#agent.py": """
assert [process({})["count"] for _ in range(3)] == [1, 2, 3]
""",
    "usage/conflicts.md#retry.py": """
from concurrent.futures import ThreadPoolExecutor
import asya_shim
import subprocess
import sys
def turn(_):
    with asya_shim.turn():
        return add("/state/sum", 2)
with ThreadPoolExecutor(4) as pool:
    list(pool.map(turn, range(40)))
with open("/state/sum") as f:
    assert json.load(f) == 80
# A retry that does not look keeps losing.
with asya_shim.turn():
    open("/state/sum").read()
    subprocess.run([sys.executable, "-c", "open('/state/sum', 'w').write('1')"], check=True)
    for _ in range(2):
        try:
            with open("/state/sum", "w") as f:
                f.write("2")
        except asya_shim.StateConflictError:
            pass
        else:
            raise AssertionError("it won")
    assert open("/state/sum").read() == "1"
""",
    "usage/handlers.md#function.py": """
assert process({"name": "Ada"}) == {"greeting": "Hello, Ada!"}
""",
    "usage/handlers.md#method.py": """
import asyncio
assert asyncio.run(Agent().process({"text": "a"})) == {"said": "A"}
""",
    "usage/handlers.md#stream.py": """
assert list(process({"text": "one two"})) == [{"word": "one"}, {"word": "two"}]
""",
    "usage/large-files.md#write.py": """
piece = bytes(range(256)) * 4096
def pieces(count):
    for _ in range(count):
        yield piece
store("/state/large", pieces(80))
import os
assert os.path.getsize("/state/large") == 80 * len(piece) > 64 * 2**20
try:
    with open("/state/large", "wb") as f:
        for one in pieces(20):
            f.write(one)
        raise RuntimeError
except RuntimeError:
    pass
assert os.path.getsize("/state/large") == 80 * len(piece)
import errno
try:
    with open("/state/large", "wb") as f:
        for one in pieces(70):
            f.write(one)
        f.seek(0)
        f.write(b"x")
except OSError as error:
    assert error.errno == errno.ESPIPE, error
else:
    raise AssertionError("seek back beyond maxFileSize")
""",
    "usage/large-files.md#tail.py": """
with open("/state/large", "wb") as f:
    for number in range(70):
        f.write(bytes([number]) * 2**20)
assert tail("/state/large", 3) == bytes([69]) * 3
assert tail("/state/large", 2**20 + 1)[:2] == bytes([68, 69])
""",
    "usage/programs.md#app.py": """
import asyncio
async def request():
    sent = []
    async def send(message):
        sent.append(message)
    await app({"type": "http"}, None, send)
    return sent[1]["body"]
assert asyncio.run(request()) == b"1"
assert asyncio.run(request()) == b"2"
""",
    "usage/programs.md#batch.py": """
rebuild(["a", "b"])
assert open("/state/index/b").read() == "B"
""",
    "usage/programs.md#child.py": """
with open("/state/f", "w") as f:
    f.write("a\\nb\\n")
assert count_lines("/state/f") == 2
""",
    "usage/programs.md#tool.py": """
import hashlib
with open("/state/f", "wb") as f:
    f.write(b"content")
assert checksum("/state/f") == hashlib.sha256(b"content").hexdigest()
""",
}


def test_every_snippet_has_its_exercise() -> None:
    assert sorted(SNIPPETS) == sorted(EXERCISES)


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with tempfile.TemporaryDirectory(prefix="asya-") as directory:
        proxy = Proxy(Path(directory), "cas", "sqlite")
        proxy.start()
        try:
            yield proxy
        finally:
            proxy.stop()


@pytest.fixture
def state(proxy: Proxy) -> dict[str, str]:
    """The environment of a process that sees an empty state at /state."""
    environ = child_environ() | proxy.environ(ASYA_STATE_PROXY_MOUNTS="cas:/state:write=buffered")
    sweep = "import os, shutil; [shutil.rmtree(e) if e.is_dir() else os.remove(e) for e in os.scandir('/state')]"
    start = "import asya_shim; asya_shim.activate_from_environment()\n"
    subprocess.run([sys.executable, "-c", start + sweep], env=environ, timeout=60, check=True)
    return environ


def run(source: str, state: dict[str, str], tmp_path: Path) -> None:
    """A program as in a handler's container: the shim active in it and in its children."""
    start = "import asya_shim; asya_shim.activate_from_environment(); del asya_shim\n"
    # The directory of the shim's sitecustomize comes first, as /opt/asya/lib does: children see the state, too.
    (tmp_path / "sitecustomize.py").write_text("import asya_shim; asya_shim.activate_from_environment()\n")
    environ = state | {"PYTHONPATH": f"{tmp_path}:{state['PYTHONPATH']}"}
    program = tmp_path / "program.py"
    program.write_text(start + source)
    done = subprocess.run(
        [sys.executable, str(program)], env=environ, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippet(name: str, state: dict[str, str], tmp_path: Path) -> None:
    if name == "index.md#agent.py":
        (tmp_path / "llm.py").write_text((DOCS.parent / "examples" / "chat-agent" / "llm.py").read_text())
    run(SNIPPETS[name].text + EXERCISES[name], state, tmp_path)


# -- the table of differences ---------------------------------------------------------------------

DIFFERENCES = """
import asya_shim, contextlib, errno, os, shutil, subprocess, sys, gzip, mmap, fcntl
from pathlib import Path

def raises(number, call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        assert error.errno == number, error
    else:
        raise AssertionError(f"{call} did not raise")

def elsewhere(code):
    subprocess.run([sys.executable, "-c", code], check=True)

def write(path, text):
    with open(path, "w") as f:
        f.write(text)

write("/state/implicit/parents/f", "x")
os.mkdir("/state/empty"); os.rmdir("/state/empty")

f = open("/state/f", "w"); f.write("x"); f.flush()
elsewhere("import os; assert not os.path.exists('/state/f')")
os.fsync(f.fileno())
elsewhere("assert open('/state/f').read() == 'x'")
f.close()

for opener in (open, gzip.open):
    with contextlib.suppress(RuntimeError), opener("/state/raised", "wt") as f:
        f.write("x"); raise RuntimeError
    assert not os.path.exists("/state/raised")

f = open("/state/f")
elsewhere("open('/state/f', 'w').write('y')")
assert f.read() == "x"
f.close()
assert open("/state/f").read() == "y"

with open("/state/f") as f:
    raises(errno.ENOSYS, fcntl.flock, f, fcntl.LOCK_EX)
raises(errno.EPERM, os.link, "/state/f", "/state/g")
raises(errno.EPERM, os.mknod, "/state/device")
os.chmod("/state/f", 0o600)
raises(errno.EACCES, open, "/state/../x")
shutil.copy2("/state/f", "/state/copy")
os.rename("/state/implicit", "/state/renamed")
assert Path("/state/renamed/parents/f").read_text() == "x"

for mib, number in ((15, 0), (17, errno.ESTALE)):
    path = f"/state/large{mib}"
    with open(path, "wb") as f:
        f.write(bytes(mib * 2**20))
    with open(path, "rb") as f:
        f.read(1)
        elsewhere(f"open({path!r}, 'wb').write(b'new')")
        if number:
            raises(number, f.read)
        else:
            assert len(f.read()) == mib * 2**20 - 1

with open("/state/mapped", "w+b") as f:
    f.write(b"x" * 10); f.flush()
    mapping = mmap.mmap(f.fileno(), 10)
    raises(errno.EBUSY, f.close)
    mapping.close()

write("/state/" + "n" * 255, "x")
raises(errno.ENAMETOOLONG, write, "/state/" + "n" * 901, "x")
raises(errno.EINVAL, write, "/state/.asya/f", "x")
"""


def test_the_differences_from_a_disk(state: dict[str, str], tmp_path: Path) -> None:
    """What docs/concepts/disk.md says of the mount, row by row."""
    run(DIFFERENCES, state, tmp_path)


# -- manifests and values -------------------------------------------------------------------------


def manifests() -> list[Block]:
    return [block for block in all_blocks("yaml") if "kind: AsyncActor" in block.text]


@pytest.mark.parametrize("block", manifests(), ids=str)
def test_manifest(block: Block) -> None:
    (actor,) = load_manifest(block.text, str(block))
    state = actor.spec.state_proxy
    assert state is not None
    if state.consistency == "cas" or actor.spec.replicas == 1:
        assert not [text for text in warnings(actor) if "lww" in text]


@pytest.mark.parametrize("block", all_blocks("yaml", "json"), ids=str)
def test_data_parses(block: Block) -> None:
    documents = list(yaml.safe_load_all(block.text)) if block.language == "yaml" else [json.loads(block.text)]
    assert all(documents)


@pytest.mark.parametrize("module", ["function", "stream"])
def test_messages(module: str, tmp_path: Path) -> None:
    """The questions and answers of docs/usage/handlers.md, put to the handlers of the page."""
    page = blocks("usage/handlers.md")
    (source,) = [block.text for block in page if block.title == f"{module}.py"]
    (tmp_path / f"{module}.py").write_text(source)
    spec = {"image": "my-agent:latest", "handler": f"{module}.process"}
    actor = {"apiVersion": "asya.sh/v1alpha1", "kind": "AsyncActor", "metadata": {"name": module}, "spec": spec}
    (tmp_path / "actor.yaml").write_text(yaml.safe_dump(actor))
    talk = [block for block in page if block.title.startswith(f"{module}.py: ")]
    with Running(tmp_path / "actor.yaml") as run:
        run.ready()
        for question, answer in zip(talk[::2], talk[1::2], strict=True):
            path = question.title.rpartition(" ")[2]
            request = urllib.request.Request(
                f"http://127.0.0.1:{run.port}{path}", question.text.encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                body = response.read().decode()
            if answer.language == "json":
                assert json.loads(body) == json.loads(answer.text)
            else:
                assert body.strip() == answer.text.strip()
        assert run.stop() == 0


def test_two_replicas_count_exactly(tmp_path: Path) -> None:
    """The manifest and the handler of docs/usage/conflicts.md, as the page says."""
    for block in blocks("usage/conflicts.md"):
        if block.title in ("actor.yaml", "agent.py"):
            (tmp_path / block.title).write_text(block.text)
    with Running(tmp_path / "actor.yaml", "--state", str(tmp_path / "state"), replicas=2) as run:
        run.ready()
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda number: run.call({}, replica=number % 2 + 1), range(60)))
        assert [status for status, _ in answers] == [200] * 60
        assert sorted(body["count"] for _, body in answers) == list(range(1, 61))
        assert run.stop() == 0
