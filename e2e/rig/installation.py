"""The chart on the cluster: installed, changed and removed by Helm alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from rig.backends import BACKENDS, NAMESPACE
from rig.cluster import ROOT, Cluster
from rig.waiting import until

RELEASE = "asya"
SYSTEM = "asya-e2e-system"
CHART = ROOT / "chart"
INSTALL_SECONDS = 120
OPERATOR, WEBHOOK, CERTIFICATE = "asya-operator", "asya-webhook", "asya-webhook-certificate"
CONFIGURATION = f"{RELEASE}-{SYSTEM}"
DEFINITION = "asyncactors.asya.sh"


@dataclass(frozen=True)
class Installation:
    """One release of the chart."""

    cluster: Cluster
    images: Mapping[str, str]

    def install(self) -> None:
        """helm install, or upgrade to these values; back when all pods are ready."""
        values = []
        for part in ("operator", "proxy"):
            repository, tag = self.images[part].rsplit(":", 1)
            values += [f"images.{part}.repository={repository}", f"images.{part}.tag={tag}"]
        values += [
            "actors.imagePullPolicy=IfNotPresent",
            *(v for backend in BACKENDS.values() for v in backend.values()),
        ]
        self.cluster.run(
            "helm", "upgrade", "--install", RELEASE, str(CHART), "--namespace", SYSTEM, "--create-namespace",
            *(part for value in values for part in ("--set", value)),
            "--wait", "--timeout", f"{INSTALL_SECONDS}s",
            deadline=INSTALL_SECONDS + 30,
        )  # fmt: skip
        self.trusted()

    def trusted(self) -> None:
        """Wait until the API server trusts the webhook."""
        path = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{CONFIGURATION}"
        until(
            lambda: self.cluster.get(path)["webhooks"][0]["clientConfig"].get("caBundle"),
            60,
            "a caBundle in the webhook",
        )

    def uninstall(self) -> None:
        """helm uninstall; the resource definition and the actors stay."""
        self.cluster.run("helm", "uninstall", RELEASE, "--namespace", SYSTEM, "--wait", deadline=90)

    def scale(self, name: str, replicas: int) -> None:
        """Scale one of the chart's Deployments, and wait until it is so."""
        self.kubectl("scale", f"deploy/{name}", f"--replicas={replicas}")
        path = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/{name}"
        component = name.removeprefix(f"{RELEASE}-")
        selector = f"app.kubernetes.io/component={component}"

        def settled() -> bool:
            status = self.cluster.get(path)["status"]
            # A webhook that is told to end goes on answering for some seconds.
            pods = self.cluster.get(f"/api/v1/namespaces/{SYSTEM}/pods", labelSelector=selector)["items"]
            return bool(status.get("readyReplicas", 0) == len(pods) == replicas)

        until(settled, 60, f"{replicas} replicas of {name}")

    def kubectl(self, *args: str, stdin: str | None = None, deadline: float = 60) -> str:
        return self.cluster.kubectl("-n", SYSTEM, *args, stdin=stdin, deadline=deadline)

    def remove(self) -> None:
        """Everything of the tests, from a cluster that is not ours."""
        self.uninstall()
        self.cluster.kubectl("delete", "crd", DEFINITION, "--timeout=60s", deadline=70)
        self.cluster.kubectl("delete", "namespace", SYSTEM, NAMESPACE, "--timeout=90s", deadline=100)


def forget(cluster: Cluster, system: str) -> None:
    """A release in a namespace of the tests, where there is one, and the resource definition that it brought."""
    cluster.run("helm", "uninstall", RELEASE, "-n", system, "--ignore-not-found", "--wait", deadline=90)
    definition = cluster.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{DEFINITION}")
    owner = (definition.get("metadata") or {}).get("annotations", {}).get("meta.helm.sh/release-namespace")
    if owner == system:
        cluster.kubectl("delete", "crd", DEFINITION, "--timeout=60s", deadline=70)
    cluster.kubectl("delete", "namespace", system, "--ignore-not-found", "--timeout=90s", deadline=100)
