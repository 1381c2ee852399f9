"""The proxy is not running: no function of any interpreter mistakes that for an answer, and nothing reaches a disk."""

import os
from pathlib import Path

import pytest

from support.state_proxy import INTERPRETERS, Reports, program_names

NAMES = program_names("outage.py", "CALLS")
NEWER = {"Path.walk": 12}
CASES = [(python, name) for python in INTERPRETERS for name in NAMES if int(python.split(".")[1]) >= NEWER.get(name, 0)]


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose sockets are not there, and home and working directories to look at afterwards."""
    home = tmp_path_factory.mktemp("away")
    return {
        "ASYA_STATE_PROXY_MOUNTS": "state:/state",
        "ASYA_STATE_SOCKET_DIR": str(home / "sockets"),
        "ASYA_STATE_REQUEST_TIMEOUT": "20ms",
        "HOME": str(home),
        "TMPDIR": str(home),
    }


@pytest.mark.parametrize(("python", "name"), CASES)
def test_raises(python: str, name: str, reports: Reports, away: dict[str, str]) -> None:
    outcome = reports.get(python, "outage.py", away)[name]
    assert "StateUnavailableError" in outcome.get("raised", ()), outcome
    assert outcome["errno"] == 5
    assert "/state/a" in outcome["text"]


@pytest.mark.parametrize("python", INTERPRETERS)
def test_nothing_is_written_anywhere(python: str, reports: Reports, away: dict[str, str]) -> None:
    written = reports.get(python, "outage.py", away)["opened for writing"]
    assert written == []
    assert os.listdir(away["HOME"]) == []
    assert not Path("/state").exists()
