"""Every object that the chart can render, against the cluster's own API server: strict, and stored nowhere."""

import os
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from rig.chart import FOREIGN, everything
from rig.cluster import Cluster
from rig.waiting import until

STRICT = ("--dry-run=server", "--validate=strict")
NAMESPACES = ("asya-system", "team-a", "team-b")


@pytest.fixture(scope="module")
def namespaces(kube: Cluster) -> Iterator[None]:
    """Those that the objects are for, with the accounts that their pods are."""
    for name in NAMESPACES:
        kube.kubectl("create", "namespace", name)
    kube.kubectl("-n", "asya-system", "create", "serviceaccount", "tester")
    path = "/api/v1/namespaces/asya-system/serviceaccounts/default"
    until(lambda: kube.get(path), 20, "the default service account")
    yield
    kube.kubectl("delete", "namespace", *NAMESPACES, "--wait=false")


def dry_run(cluster: Cluster, text: str) -> subprocess.CompletedProcess[str]:
    """kubectl apply, as far as the API server's own checks, quotas and admission go."""
    return subprocess.run(
        [cluster.programs["kubectl"], "apply", "--server-side", "--force-conflicts", *STRICT, "-f", "-"],
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.usefixtures("namespaces")
def test_the_api_server_takes_every_object_and_warns_of_none(kube: Cluster) -> None:
    bodies = [body for body in everything() if body["apiVersion"] not in FOREIGN]
    done = dry_run(kube, yaml.safe_dump_all(bodies))
    # A warning is a field that goes with a later Kubernetes.
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(bodies)


@pytest.mark.usefixtures("namespaces")
def test_the_api_server_refuses_what_it_does_not_know(kube: Cluster) -> None:
    body = next(body for body in everything() if body["kind"] == "NetworkPolicy")
    done = dry_run(kube, yaml.safe_dump({**body, "spec": {**body["spec"], "ingres": []}}))
    assert done.returncode == 1
    assert "spec.ingres: field not declared in schema" in done.stderr
