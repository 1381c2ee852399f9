"""What all tests share: golden files with the one flag that writes them anew, and the flag for the long campaigns."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.golden import Golden


def pytest_configure(config: pytest.Config) -> None:
    """The same examples each time, however slow the machine; the long campaigns draw anew."""
    settings.register_profile(
        "house",
        deadline=None,
        derandomize=not config.getoption("--soak"),
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="write golden files anew instead of comparing with them")
    parser.addoption("--soak", action="store_true", help="run the long campaigns (marker `soak`), and only these")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long campaigns out, or everything else; an expression given with -m decides by itself."""
    if "soak" in config.getoption("-m"):
        return
    wanted = config.getoption("--soak")
    left_out = [item for item in items if (item.get_closest_marker("soak") is not None) != wanted]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if (item.get_closest_marker("soak") is not None) == wanted]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compares text with files in the directory `golden` beside the test."""
    return Golden(Path(request.path).parent / "golden", update=request.config.getoption("--update"))
