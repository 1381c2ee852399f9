"""`make e2e` picks its cluster: e2e/run.sh and e2e/kind.sh with programs that only write down how they were called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

E2E = Path(__file__).resolve().parents[2] / "e2e"
OLDEST, NEWEST = "kindest/node:v1.30", "kindest/node:v1.37"


class Machine:
    """A checkout with the two scripts, and every program that they call."""

    def __init__(self, place: Path) -> None:
        self.root = place / "checkout"
        self._log = place / "log"
        self._bin = place / "bin"
        self._cache = place / "cache"
        self.status = {"docker": 0, "pytest": 0}
        for name in ("run.sh", "kind.sh"):
            (self.root / "e2e").mkdir(parents=True, exist_ok=True)
            shutil.copy(E2E / name, self.root / "e2e" / name)
        for name in ("deps.sh", "build.sh", "image.sh"):
            self._program(self.root / "e2e" / "cluster" / name, f"local {name}")
        self._program(self.root / "tests" / "servers" / "build.sh", "servers")
        self._program(self.root / ".venv" / "bin" / "pytest", "pytest", "KUBECONFIG=${KUBECONFIG-none}")
        for name in ("docker", "kubectl", "helm"):
            self._program(self._bin / name, name)
        for version in ("v0.29.0", "v0.33.0"):
            self._program(self._cache / "asya" / "bin" / f"kind-{version}", f"kind {version}")

    def _program(self, path: Path, name: str, more: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        key = name.split()[0].upper()
        path.write_text(f'#!/bin/sh\necho "{name} $* {more}" >> "{self._log}"\nexit "${{{key}_STATUS-0}}"\n')
        path.chmod(0o755)

    def run(self, **variables: str) -> tuple[int, list[str]]:
        """Exit status, and what was called."""
        status = {f"{name.upper()}_STATUS": str(code) for name, code in self.status.items()}
        kept = {name: text for name, text in os.environ.items() if name not in ("KUBECONFIG", "E2E_PROVIDER")}
        path = f"{self._bin}:{os.environ['PATH']}"
        environment = {**kept, **status, "PATH": path, "XDG_CACHE_HOME": str(self._cache), **variables}
        done = subprocess.run(
            [self.root / "e2e" / "run.sh", "-k", "one"], env=environment, capture_output=True, timeout=60, check=False
        )
        return done.returncode, self._log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_cluster_that_is_named(machine: Machine) -> None:
    status, called = machine.run(KUBECONFIG="/mine")
    assert status == 0
    assert called == ["servers versitygw gcsd ", "pytest e2e -k one KUBECONFIG=/mine"]


@pytest.mark.parametrize(
    ("variables", "kind", "node"),
    [({}, "v0.33.0", NEWEST), ({"E2E_KUBERNETES": "oldest"}, "v0.29.0", OLDEST)],
    ids=["newest", "oldest"],
)
def test_kind_where_docker_is(machine: Machine, variables: dict[str, str], kind: str, node: str) -> None:
    status, called = machine.run(**variables)
    assert status == 0
    assert [line.split()[0] for line in called] == ["servers", "docker", "kind", "pytest", "kind"]
    _, _, create, tests, delete = called
    assert create.startswith(f"kind {kind} create cluster --name asya-e2e-")
    assert f"--image {node}" in create
    assert "@sha256:" in create
    kubeconfig = create.split("--kubeconfig ")[1].split()[0]
    assert tests == f"pytest e2e -k one KUBECONFIG={kubeconfig}"
    name = create.split("--name ")[1].split()[0]
    assert delete.split() == ["kind", kind, "delete", "cluster", "--name", name]
    assert not Path(kubeconfig).parent.exists()


def test_a_failure_on_kind_keeps_what_its_nodes_say(machine: Machine) -> None:
    machine.status["pytest"] = 3
    status, called = machine.run()
    assert status == 3
    assert "export logs" in called[-2]
    assert called[-2].rstrip().endswith("build/e2e-artifacts/kind")
    assert "delete cluster" in called[-1]


@pytest.mark.parametrize("reason", ["no-docker", "asked"])
def test_a_local_cluster_else(machine: Machine, reason: str) -> None:
    machine.status["docker"] = 1 if reason == "no-docker" else 0
    status, called = machine.run(**({"E2E_PROVIDER": "local"} if reason == "asked" else {}))
    assert status == 0
    assert [line for line in called if not line.startswith("docker")] == [
        "servers versitygw gcsd ",
        "local deps.sh  ",
        "local build.sh  ",
        "local image.sh base 3.13 ",
        "pytest e2e -k one KUBECONFIG=none",
    ]
