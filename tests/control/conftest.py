"""Fixtures of the control plane's tests: a real API server without nodes."""

import gc
from pathlib import Path

import pytest
import yaml

from support.kube import api_server

ROOT = Path(__file__).resolve().parents[2]
CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/asyncactors.asya.sh"


@pytest.fixture(autouse=True)
def _own_garbage():
    """What a test leaves unclosed is that test's failure and not the next one's."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def kube(tmp_path_factory):
    """One API server for the session, with the CRD in it and established."""
    with api_server(tmp_path_factory.mktemp("kube")) as server:
        answer = server.apply(yaml.safe_load((ROOT / "crds" / "asyncactors.yaml").read_text()), CRD_PATH)
        assert answer.status_code == 201, answer.text
        server.wait(lambda: server.request("GET", "/apis/asya.sh/v1alpha1/asyncactors").status_code == 200)
        yield server
