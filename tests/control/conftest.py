"""Fixtures of the control plane's tests: a real API server without nodes."""

import gc
import itertools

import pytest

from support.kube import api_server, install
from support.running_operator import Cluster

numbers = itertools.count()


@pytest.fixture(autouse=True)
def _own_garbage():
    """What a test leaves unclosed is that test's failure and not the next one's."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def kube(tmp_path_factory):
    """One API server for the session, with the CRD in it and established."""
    with api_server(tmp_path_factory.mktemp("kube")) as server:
        install(server)
        yield server


@pytest.fixture
def cluster(kube):
    """A namespace of the test's own."""
    name = f"operator-{next(numbers)}"
    assert kube.request("POST", "/api/v1/namespaces", json={"metadata": {"name": name}}).status_code == 201
    return Cluster(kube, name)
