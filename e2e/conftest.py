"""One cluster, one set of images and one installation for the session; a namespace for each test."""

import contextlib
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from rig import artifacts, backends
from rig.actors import Namespace, new_namespace
from rig.cluster import Cluster, cluster
from rig.images import images as build_images
from rig.installation import SYSTEM, Installation, forget
from support.golden import Golden

FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep-cluster", action="store_true", help="leave the local cluster running at the end")
    parser.addoption("--update", action="store_true", help="write golden files anew instead of comparing with them")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What wants a cluster without an installation comes before all that share one."""
    items.sort(key=lambda item: "empty" not in getattr(item, "fixturenames", ()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
def kube(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster; what failed sessions before left in the artifacts goes."""
    shutil.rmtree(artifacts.PLACE, ignore_errors=True)
    with cluster(keep=request.config.getoption("--keep-cluster")) as found:
        yield found


@pytest.fixture(scope="session")
def images(kube: Cluster) -> dict[str, str]:
    """Names of the images on the node."""
    return build_images(kube)


@pytest.fixture
def empty(request: pytest.FixtureRequest, kube: Cluster) -> Iterator[Cluster]:
    """The cluster with nothing of Asya on it, before and after; the test may install into `asya-system`."""
    forget(kube, SYSTEM)
    yield kube
    if request.node.stash.get(FAILED, False):
        artifacts.dump(kube, request.node.name, "default", "asya-system")
    forget(kube, "asya-system")


@pytest.fixture(scope="session")
def installation(kube: Cluster, images: dict[str, str]) -> Iterator[Installation]:
    """The chart, installed by Helm, and the backends beside it."""
    found = Installation(kube, images)
    try:
        backends.start(kube, images)
        found.install()
    except BaseException:
        artifacts.dump(kube, "installation")
        raise
    yield found
    if not kube.local:
        found.remove()


@pytest.fixture
def namespace(
    request: pytest.FixtureRequest, kube: Cluster, images: dict[str, str], installation: Installation
) -> Iterator[Namespace]:
    """A namespace of the test's own; `@pytest.mark.parametrize("namespace", [labels], indirect=True)` labels it."""
    found = new_namespace(kube, images, getattr(request, "param", {}))
    yield found
    if request.node.stash.get(FAILED, False):
        place = artifacts.dump(kube, request.node.name, found.name)
        request.node.add_report_section("teardown", "artifacts", str(place))
    # Its actors go first, while the operator is there to release what must be released; nobody waits.
    with contextlib.suppress(Exception):
        kube.kubectl("-n", found.name, "delete", "asyncactors", "--all", "--wait=false")
    kube.kubectl("delete", "namespace", found.name, "--wait=false")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compares text with files in the directory `golden` beside the test."""
    return Golden(Path(request.path).parent / "golden", update=request.config.getoption("--update"))
