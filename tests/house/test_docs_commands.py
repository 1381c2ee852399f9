"""Every shell block of the documentation is run or checked.

The laptop's quickstart runs as it stands, in an empty directory, and prints what the page says. Elsewhere: our own
programs parse their command lines, Helm renders the chart with the values and options shown, kubectl parses what it is
told as far as the request that it cannot send. Programs of others (aws, gcloud, nats, redis-cli) are checked for the
shell's syntax and for the files they name.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from asya_cli.__main__ import main as asya
from asya_operator.__main__ import _parser as operator_parser
from asya_proxy.__main__ import _parser as proxy_parser
from support.documentation import DOCS, Block, all_blocks, blocks, matches, section
from support.ports import free_port

ROOT = DOCS.parent
OTHERS = {"aws", "gcloud", "nats", "redis-cli", "sed", "curl", ".", "make"}


def commands(block: Block) -> list[str]:
    """The lines of a block, without comments."""
    return [line for line in block.text.splitlines() if line and not line.startswith("#")]


def words(line: str) -> list[str]:
    return shlex.split(line)


def everywhere(program: str) -> list[tuple[str, str]]:
    return [(str(block), line) for block in all_blocks("bash") for line in commands(block) if words(line)[0] == program]


# -- run ------------------------------------------------------------------------------------------


class Laptop:
    """An empty directory, and `asya run` in the background of it. Ports are free ones instead of 8080 and 8081."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port(2)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environ = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
        self._running: subprocess.Popen[str] | None = None
        self._drain: threading.Thread | None = None

    def run(self, block: Block) -> str:
        """Output of the whole block; an AssertionError where a command fails."""
        text = block.text
        for number in (0, 1):
            text = text.replace(f"localhost:{8080 + number}/", f"localhost:{self.port + number}/")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.directory,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{block}: {done.stdout}{done.stderr}"
        return done.stdout

    def begin(self, block: Block) -> None:
        """Start what goes on, once what went on before has ended; returns when it is ready."""
        self.end()
        argv = ["bash", "-c", f"exec {block.text.strip()} --port {self.port}"]
        process = subprocess.Popen(
            argv, cwd=self.directory, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._running = process
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if " is ready: " in line:
                self._drain = threading.Thread(target=process.stdout.read)
                self._drain.start()
                return
        raise AssertionError("".join(seen))

    def end(self) -> None:
        """Ctrl-C."""
        process, self._running = self._running, None
        if process is not None:
            with process:
                process.send_signal(signal.SIGINT)
                try:
                    assert process.wait(60) == 0
                finally:
                    process.kill()
                    if self._drain is not None:
                        self._drain.join(60)


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    laptop = Laptop(tmp_path)
    try:
        yield laptop
    finally:
        laptop.end()


def test_the_laptop_prints_what_the_page_says(laptop: Laptop) -> None:
    output = ""
    ran = compared = 0
    for block in section("quickstart.md", "On a laptop"):
        if block.language == "bash" and block.check == "background":
            laptop.begin(block)
        elif block.language == "bash" and not block.check:
            output = laptop.run(block)
            ran += 1
        elif block.language == "python":
            assert (laptop.directory / block.title).read_text() == block.text
            compared += 1
        elif block.language in ("text", "json"):
            assert matches(block.text, output), f"{block}: wanted\n{block.text}\ngot\n{output}"
            compared += 1
    assert (ran, compared) == (4, 5)


def test_what_is_checked_otherwise_is_little() -> None:
    """The first block of the quickstart is how the tests themselves were installed."""
    assert [block.check for block in all_blocks("bash") if block.check] == ["installed", *4 * ["background"]]
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for _, line in everywhere("make") for word in words(line)[1:]}
    assert named
    assert named <= targets


# -- check ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", all_blocks("bash"), ids=str)
def test_the_shell_understands_it(block: Block) -> None:
    subprocess.run(["bash", "-n", "-c", block.text], check=True)
    known = OTHERS | {"asya", "asya-state-proxy", "asya-operator", "kubectl", "helm"}
    for line in commands(block):
        assert words(line)[0] in known, f"{block}: nothing checks {words(line)[0]}"
    for path in re.findall(r"\bdocs/[\w./-]+", block.text):
        assert (ROOT / path).exists(), f"{block}: {path}"


@pytest.mark.parametrize(("where", "line"), everywhere("asya"))
def test_asya(where: str, line: str) -> None:
    given = words(line)[1:]
    command: click.Command = asya
    context = click.Context(asya)
    while isinstance(command, click.Group):
        found = command.get_command(context, given.pop(0))
        assert found is not None, f"{where}: {line}"
        command = found
    command.make_context("asya", given)


PARSERS = {"asya-operator": operator_parser, "asya-state-proxy": proxy_parser}


def ours() -> list[list[str]]:
    """The command lines of our programs, as they stand or behind `kubectl exec ... --`."""
    given = [words(line) for program in (*PARSERS, "kubectl") for _, line in everywhere(program)]
    given = [line[line.index("--") + 1 :] if line[0] == "kubectl" and "--" in line else line for line in given]
    return [line for line in given if line[0] in PARSERS]


@pytest.mark.parametrize("given", ours(), ids=" ".join)
def test_our_programs_parse(given: list[str]) -> None:
    PARSERS[given[0]]().parse_args(given[1:])


def cluster_binary(name: str) -> str:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "asya" / "cluster" / "bin" / name
    assert path.exists(), f"{path} is missing: run make cluster-build"
    return str(path)


@pytest.mark.parametrize(("where", "line"), everywhere("kubectl"))
def test_kubectl(where: str, line: str, tmp_path: Path) -> None:
    """No flag, verb or kind that it does not know: it gets as far as a server that refuses connections."""
    given = words(line)[1:]
    for number, word in enumerate(given):
        if word == "-f":
            (tmp_path / "actor.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
            given[number + 1] = str(tmp_path / "actor.yaml")
        if word.startswith("--from-file="):
            (tmp_path / "key").write_text("x")
            given[number] = re.sub(r"=([^=]+)=.*", rf"=\1={tmp_path / 'key'}", word)
    done = subprocess.run(
        [cluster_binary("kubectl"), "--server=http://127.0.0.1:1", *given],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "refused" in done.stderr, f"{where}: {done.stderr}"


def test_containers_have_their_names() -> None:
    named = [words(line) for _, line in everywhere("kubectl") if " exec " in line and " -c " in line]
    assert {given[given.index("-c") + 1] for given in named} == {"asya-state-proxy", "asya-runtime"}


# -- the chart ------------------------------------------------------------------------------------


def render(*arguments: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [cluster_binary("helm"), "template", *arguments, "--kube-version", "1.30.0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]


@pytest.mark.parametrize(
    ("where", "line"), [pair for pair in everywhere("helm") if words(pair[1])[1] in ("install", "upgrade")]
)
def test_helm(where: str, line: str, tmp_path: Path) -> None:
    given = [word for word in words(line)[2:] if word not in ("--create-namespace", "--install")]
    for number, word in enumerate(given):
        if word == "-f":
            values = next(b for b in blocks(where.split(":")[0]) if b.title == given[number + 1])
            (tmp_path / "values.yaml").write_text(values.text)
            given[number + 1] = str(tmp_path / "values.yaml")
    made = {(body["kind"], body["metadata"]["name"]) for body in render(*given)}  # type: ignore[index]
    assert {("Deployment", "asya-operator"), ("Deployment", "asya-webhook")} <= made


@pytest.mark.parametrize("block", [b for b in all_blocks("yaml") if b.title == "values.yaml"], ids=str)
def test_values(block: Block, tmp_path: Path) -> None:
    """The chart takes them, and the operator gets what they say."""
    values = tmp_path / "values.yaml"
    values.write_text(block.text)
    (config,) = [
        json.loads(next(iter(body["data"].values())))  # type: ignore[attr-defined]
        for body in render("asya", "chart", "-f", str(values))
        if body["kind"] == "ConfigMap"
    ]
    for backend, stated in yaml.safe_load(block.text)["stateProxy"].get("backends", {}).items():
        for name, value in stated.items():
            assert config["backends"][backend][name] == value
