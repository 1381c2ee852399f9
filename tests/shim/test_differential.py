"""Programs of file operations do below a mount what they do on a disk, on every interpreter and in both modes."""

from pathlib import Path

import pytest

from support.state_proxy import INTERPRETERS, Proxy, Reports, program_names

NAMES = program_names("differential.py", "PROGRAMS")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.mark.parametrize("python", INTERPRETERS)
@pytest.mark.parametrize("name", NAMES)
def test_like_a_disk(python: str, name: str, proxy: Proxy, reports: Reports, real: Path) -> None:
    key = f"{proxy.consistency}-{python}"
    report = reports.get(python, "differential.py", proxy.environ(), str(real / key), f"{proxy.mount.path}/{python}")[
        name
    ]
    assert report["state"][0] == report["real"][0]
    assert report["state"][1] == report["real"][1]
