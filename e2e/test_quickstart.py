"""The quickstart of the documentation, on an empty cluster, as it is written but for images and the local port."""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rig.cluster import ROOT, Cluster
from rig.waiting import until
from support.documentation import Block, matches, section
from support.golden import Golden
from support.ports import free_port

SYSTEM = "asya-system"
COMMAND_SECONDS = 180
COLLECTED_SECONDS = 60
"""Deployments go with their actor when Kubernetes' garbage collector comes to it, and pods take their grace period."""


class Reader:
    """Somebody who follows the page, in a directory with the chart and the example."""

    def __init__(self, cluster: Cluster, images: Mapping[str, str], place: Path) -> None:
        self._images = images
        self._place = place
        programs = place / "bin"
        programs.mkdir()
        for name, path in cluster.programs.items():
            (programs / name).symlink_to(path)
        (place / "chart").symlink_to(ROOT / "chart")
        (place / "examples").mkdir()
        example = (ROOT / "examples" / "quickstart.yaml").read_text()
        (place / "examples" / "quickstart.yaml").write_text(example.replace("python:3.13-slim", images["plain"]))
        self._port = free_port()
        self._environ = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "KUBECONFIG": str(cluster.kubeconfig),
        }
        self._forward: subprocess.Popen[str] | None = None

    def _text(self, block: Block) -> str:
        text = block.text.replace("--set images.registry=registry.example.com/asya", self._overrides())
        return text.replace("localhost:8080/", f"localhost:{self._port}/").replace(" 8080:8080", f" {self._port}:8080")

    def _overrides(self) -> str:
        places = {"images.operator": "operator", "images.proxy": "proxy", "quickstart.image": "s3"}
        pairs = {place: self._images[name].rsplit(":", 1) for place, name in places.items()}
        return " ".join(f"--set {place}.repository={name},{place}.tag={tag}" for place, (name, tag) in pairs.items())

    def run(self, block: Block) -> str:
        """Output of a block; an AssertionError where a command of it fails."""
        started = time.monotonic()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._text(block)],
            cwd=self._place,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{block}: {done.stdout}{done.stderr}"
        print(f"{time.monotonic() - started:4.1f} s  {block.text.splitlines()[0]}")
        return done.stdout

    def begin(self, block: Block) -> None:
        """What goes on in another terminal; what went on there before ends by itself or is ended."""
        self.end()
        command = f"exec {self._text(block).strip()}"
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=self._place, env=self._environ, stdout=subprocess.PIPE, text=True
        )
        self._forward = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Forwarding from"), f"{block}: {line!r}"

    def end(self) -> None:
        if self._forward is not None:
            with self._forward as process:
                process.terminate()
            self._forward = None


@pytest.fixture
def reader(empty: Cluster, images: Mapping[str, str], tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(empty, images, tmp_path)
    yield reader
    reader.end()


def test_the_quickstart_as_it_is_written(reader: Reader, empty: Cluster, golden: Golden) -> None:
    ran = compared = 0
    output = ""
    for block in section("quickstart.md", "On Kubernetes"):
        if block.language == "bash" and block.check == "background":
            reader.begin(block)
        elif block.language == "bash" and not block.text.startswith("make "):
            if "helm uninstall" in block.text:
                golden.check("chart/NOTES-quickstart.txt", empty.run("helm", "get", "notes", "asya", "-n", SYSTEM))
            output = reader.run(block)
            ran += 1
            if "helm test" in block.text:
                assert "Succeeded" in output
                assert re.search(r"^state \(s3, cas\): ok: promises and races tested$", output, re.MULTILINE)
        elif block.language == "json":
            assert matches(block.text, output), f"{block}: wanted\n{block.text}\ngot\n{output}"
            compared += 1
    assert (ran, compared) == (8, 3)
    until(lambda: _left(empty) == [], COLLECTED_SECONDS, "everything of the actor to be collected")


def _left(cluster: Cluster) -> list[str]:
    names = cluster.kubectl("get", "all,configmap,secret", "-n", "default", "-o", "name").split()
    return [name for name in names if "kube" not in name]
