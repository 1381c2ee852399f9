"""What all tests share: golden files and the one flag that writes them anew."""

from pathlib import Path

import pytest

from support.golden import Golden


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="write golden files anew instead of comparing with them")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compares text with files in the directory `golden` beside the test."""
    return Golden(Path(request.path).parent / "golden", update=request.config.getoption("--update"))
