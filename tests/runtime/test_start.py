"""What the runtime says and does when it cannot start, and before it is ready."""

import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .conftest import RUN, SOURCE, eventually


@pytest.mark.parametrize(
    ("source", "handler", "says"),
    [
        ("def process(s): pass", "agent.proces", "agent ({cwd}/agent.py) has no 'proces'; did you mean process?"),
        ("def other(s): pass", "agent.xyz", "has no 'xyz'; there is other"),
        ("x = 1", "agent.xyz", "there is nothing that can be called in agent"),
        ("x = 1", "agent.x", "agent.x is of type int, not a function"),
        ("x = 1", "agnt.process", "there is no module 'agnt' in {cwd} (modules there: agent)"),
        ("x = 1", "agent", "expected module.function or module.Class.method"),
        ("x = 1", "agent.py:process", "expected module.function"),
        (
            "import llm_missing",
            "agent.process",
            "importing module 'agent' failed: ModuleNotFoundError: No module named",
        ),
        ("1 / 0", "agent.process", "importing module 'agent' failed: ZeroDivisionError"),
        ("def process(:", "agent.process", "importing module 'agent' failed: SyntaxError"),
        ("import sys; sys.exit(5)", "agent.process", "importing module 'agent' failed: SystemExit: 5"),
        ("class A:\n  def run(self, s): pass", "agent.A", "agent.A is a class; name one of its methods: run"),
        ("class A:\n  def run(self, s): pass", "agent.A.walk", "agent.A has no 'walk'; there is run"),
        (
            "class A:\n  def __init__(self, x): pass\n  def run(s): 1",
            "agent.A.run",
            "building agent.A() failed: TypeError",
        ),
        ("def process(): pass", "agent.process", "agent.process() is called with one argument, the payload: too many"),
        ("async def process(a, b): pass", "agent.process", "(a, b) is called with one argument, the payload: missing"),
        ("class A:\n  def run(self): 1", "agent.A.run", "is called with one argument, the payload: "),
    ],
)
def test_handler_that_cannot_be_had(runtime: Any, tmp_path: Path, source: str, handler: str, says: str) -> None:
    actor = runtime.start(source, handler)
    assert actor.end() == 1
    last = actor.lines[-1]
    assert last.startswith(f"asya: ASYA_HANDLER={handler!r}: ")
    assert says.format(cwd=tmp_path) in last


@pytest.mark.parametrize(
    "source",
    [
        "def process(s, *, verbose=False): return s",
        "import functools\ndef two(a, b): return b\nprocess = functools.partial(two, 1)",
        "import functools\ndef inject(f):\n  @functools.wraps(f)\n  def g(s): return f(s, 1)\n  return g\n"
        "@inject\ndef process(s, db): return s",
        "class F:\n  __signature__ = 'nonsense'\n  def __call__(self, s): return s\nprocess = F()",
        "process = abs",
    ],
    ids=["keyword", "partial", "injected", "signature of its own", "in C"],
)
def test_handler_of_one_argument_in_the_end(runtime: Any, source: str) -> None:
    actor = runtime.serve(source)
    assert actor.post(1).json == 1


def test_failing_import_shows_its_traceback(runtime: Any) -> None:
    actor = runtime.start("def deep():\n    1 / 0\n\ndeep()")
    assert actor.end() == 1
    assert any("agent.py" in line and "in deep" in line for line in actor.lines)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ASYA_HANDLER", "", "ASYA_HANDLER is not set"),
        ("ASYA_CONCURRENCY", "none", "ASYA_CONCURRENCY='none': expected a whole number"),
        ("ASYA_TURN_TIMEOUT", "soon", "ASYA_TURN_TIMEOUT='soon'"),
    ],
)
def test_bad_variables(runtime: Any, variable: str, value: str, says: str) -> None:
    variables = {"ASYA_HANDLER": "agent.process", variable: value}
    actor = runtime.start("def process(s): pass", variables.pop("ASYA_HANDLER"), **variables)
    assert actor.end() == 78
    assert says in actor.lines[-1]


def test_port_in_use(runtime: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        actor = runtime.start("def process(s): pass", ASYA_HTTP_PORT=str(port))
        assert actor.end() == 69
    assert f"cannot listen on 127.0.0.1:{port}" in actor.lines[-1]


def test_probes_are_answered_while_the_handler_is_imported(runtime: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    actor = runtime.start(
        "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\ndef process(s): return s",
        ASYA_HTTP_PORT=str(port),
    )
    actor.port = port

    def alive() -> bool:
        try:
            return bool(actor.call("GET", "/healthz").status == 200)
        except ConnectionError:
            return False

    eventually(alive)
    for answer in (actor.post(1), actor.call("GET", "/readyz")):
        assert (answer.status, answer.json["error"]) == (503, "starting")
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(actor.call, "GET", "/readyz")
        assert actor.post(1).status == 503
        assert not probe.done()
        runtime.write("go", "")
        assert probe.result().status == 200
    assert actor.post(1).json == 1


def test_without_mounts_the_shim_is_not_imported(runtime: Any) -> None:
    actor = runtime.serve(
        "import sys\ndef process(s): return sorted(m for m in sys.modules if m.startswith('asya_shim'))"
    )
    assert actor.post(1).json == []


def test_pod_without_a_proxy_exits_naming_the_socket(runtime: Any, tmp_path: Path) -> None:
    actor = runtime.start(
        "def process(s): return s",
        ASYA_STATE_PROXY_MOUNTS="state:/state:write=buffered",
        ASYA_STATE_SOCKET_DIR=str(tmp_path),
        ASYA_STATE_WAIT="300ms",
    )
    assert actor.end() == 69
    assert f"no state proxy on {tmp_path}/state.sock after 0.3 s (No such file or directory)" in actor.lines[-1]


def test_proxy_that_comes_late_is_waited_for_before_the_import(runtime: Any, tmp_path: Path) -> None:
    actor = runtime.start(
        "print('imported', flush=True)\ndef process(s): return s",
        ASYA_STATE_PROXY_MOUNTS="state:/state:write=buffered",
        ASYA_STATE_SOCKET_DIR=str(tmp_path),
    )
    with socket.socket(socket.AF_UNIX) as proxy:
        proxy.bind(str(tmp_path / "state.sock"))
        assert "imported" not in actor.lines
        proxy.listen()
        actor.ready()
        assert actor.post(1).json == 1
        actor.process.terminate()
        assert actor.end() == 0


def test_working_directory_is_importable_and_the_runtimes_is_not(runtime: Any) -> None:
    runtime.write("server.py", "MINE = True")
    actor = runtime.serve(
        """
        import os, subprocess, sys
        import server
        def process(s):
            child = subprocess.run([sys.executable, "-c", "import asya_contract"])
            return [server.MINE, sys.path[0] == os.getcwd(), child.returncode]
        """,
        PYTHONPATH="",
    )
    assert actor.post(1).json == [True, True, 0]


def test_installed_layout(runtime: Any, tmp_path: Path) -> None:
    """`run.py` beside `lib/`, as `asya-state-proxy install DIR` lays them out."""
    there = tmp_path / "opt"
    for package in ("asya_contract", "asya_runtime", "asya_shim"):
        unwanted = shutil.ignore_patterns("__pycache__", "run.py")
        shutil.copytree(SOURCE / package, there / "lib" / package, ignore=unwanted)
    shutil.copy(RUN, there / "run.py")
    actor = runtime.start(
        "import os, asya_contract\ndef process(s): return [asya_contract.__file__, os.environ['PYTHONPATH']]",
        run=there / "run.py",
        PYTHONPATH="/images/own",
    ).ready()
    file, path = actor.post(1).json
    assert file.startswith(str(there / "lib"))
    assert path == f"{there}/lib:/images/own"


def _version(python: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in python.parent.parent.name.split("."))


INSTALLED = sorted(Path.home().glob(".pyenv/versions/3.*.*/bin/python"), key=_version)
SUPPORTED = [python for python in INSTALLED if _version(python) >= (3, 9)] or [Path(sys.executable)]
OLD = [python for python in INSTALLED if _version(python) < (3, 9)]


@pytest.mark.parametrize("python", SUPPORTED, ids=lambda path: path.parent.parent.name)
@pytest.mark.parametrize("concurrency", ["1", "2"])
def test_every_installed_python(runtime: Any, python: Path, concurrency: str) -> None:
    source = """
        import asyncio
        def process(state): return state
        async def aprocess(state):
            await asyncio.sleep(0)
            return state
        def frames(state):
            yield state
        async def aframes(state):
            yield state
    """
    for handler in ("process", "aprocess", "frames", "aframes"):
        actor = runtime.start(source, f"agent.{handler}", python=str(python), ASYA_CONCURRENCY=concurrency).ready()
        answer = actor.post({"x": 1})
        if "frames" in handler:
            assert answer.events == [("downstream", {"x": 1}), ("done", {})]
        else:
            assert answer.json == {"x": 1}
        actor.process.terminate()
        assert actor.end() == 0
        assert not [line for line in actor.lines if "Warning" in line or "Traceback" in line]


def test_unsupported_python_is_told_in_one_line(tmp_path: Path) -> None:
    """By every old Python there is, and by this one made to look like one."""
    copy = tmp_path / "run.py"
    copy.write_text(RUN.read_text().replace("import sys\n", "import sys\nsys.version_info = (3, 6, 9)\n", 1))
    for python, run in [(Path(sys.executable), copy), *((old, RUN) for old in OLD)]:
        done = subprocess.run([str(python), str(run)], capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "is not supported: expected CPython 3.9 or newer" in done.stderr


def test_run_file_is_readable_by_any_python() -> None:
    """What Python 2.7 and the first 3.x cannot parse: annotations, f-strings, keyword-only markers."""
    import ast

    tree = ast.parse(RUN.read_text())
    modern = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Match, ast.Await)
    assert not [node for node in ast.walk(tree) if isinstance(node, modern)]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.returns is None
            assert not [argument for argument in node.args.args if argument.annotation]
