"""The local cluster's scripts do not work against each other: no cluster is needed to see it."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "e2e" / "cluster"


@pytest.fixture
def down(tmp_path):
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "ASYA_CLUSTER_DIR": str(tmp_path), "ASYA_CLUSTER_NAME": "asya-nowhere"}
        return subprocess.run(
            [SCRIPTS / "down.sh", *options], env=env, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_a_cluster_in_use_is_not_ended_unless_forced(down, tmp_path):
    with (tmp_path / "in-use").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("pid 1")
        file.flush()
        refused = down()
        assert refused.returncode == 1
        assert refused.stderr == (
            f"down: a test run (pid 1) uses the cluster in {tmp_path}; wait for its end, or give --force\n"
        )
        assert down("--force").returncode == 0
    assert down().returncode == 0, "the file alone is no test run"


def test_a_second_script_waits_for_the_first(tmp_path):
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        env = {**os.environ, "ASYA_CLUSTER_DIR": str(tmp_path), "ASYA_CLUSTER_NAME": "asya-nowhere"}
        second = subprocess.Popen([SCRIPTS / "down.sh"], env=env, stderr=subprocess.PIPE, text=True)
        assert second.stderr is not None
        assert second.stderr.readline() == f"down: another up or down works on {tmp_path}; waiting for it\n"
    with second:
        assert second.wait(60) == 0


def test_an_option_that_means_nothing(down):
    assert down("--purgee").returncode == 2
