"""The rendered chart, by Helm's own engine: golden files, the values' schema, and what the operator reads of it."""

import json
import re
import subprocess
from collections.abc import Sequence

import pytest
import yaml
from asya_operator.kube import KINDS
from asya_operator.settings import Settings, parse_settings

from rig.cluster import ROOT, Object, local_programs
from support.golden import Golden

CHART = ROOT / "chart"
KUBE_VERSION = "1.35"
# One file for each set of values that changes what is rendered.
RENDERED: dict[str, list[str]] = {
    "defaults": [],
    "backends": [
        "stateProxy.keyPrefix=prod/",
        "stateProxy.backends.s3.region=eu-central-1",
        "stateProxy.backends.s3.secretName=bucket-keys",
        "stateProxy.backends.s3.env[0].name=AWS_RETRY_MODE,stateProxy.backends.s3.env[0].value=standard",
        "stateProxy.backends.redis.endpoint=rediss://redis.databases:6379/1",
        "stateProxy.backends.nats.endpoint=nats://nats.databases:4222",
        "stateProxy.backends.gcs.resources.limits.memory=512Mi",
    ],
    "namespaces": ["watchNamespaces={team-b,team-a}"],
    "cert-manager": ["certificates.mode=certManager"],
    "given-secret": ["certificates.mode=secret", "certificates.secretName=mine", "certificates.caBundle=TUlORQ=="],
    "openshift": ["stateProxy.uid=0"],
    "images": [
        "images.registry=registry.example.com/asya",
        "images.operator.tag=1.2.3",
        "images.proxy.digest=sha256:" + 64 * "0",
        "images.previousProxies={registry.example.com/asya/asya-state-proxy:1.2.2}",
        "images.pullSecrets={registry}",
        "images.pullPolicy=Always",
    ],
    "placement": [
        "webhook.replicas=1",
        "webhook.priorityClassName=important",
        "operator.nodeSelector.pool=system",
        "webhook.tolerations[0].key=system,webhook.tolerations[0].operator=Exists",
        "commonLabels.team=platform",
        "fullnameOverride=state",
    ],
}


def helm(*args: str) -> str:
    """What Helm prints; its complaint is the error's text."""
    done = subprocess.run([local_programs()["helm"], *args], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise ValueError(done.stderr + done.stdout)
    return done.stdout


def render(values: Sequence[str]) -> str:
    """The whole chart, as `helm install asya --namespace asya-system` would send it."""
    settings = [part for value in values for part in ("--set", value)]
    return helm("template", "asya", str(CHART), "-n", "asya-system", "--kube-version", KUBE_VERSION, *settings)


def objects(text: str) -> list[Object]:
    return [body for body in yaml.safe_load_all(text) if body]


def settings(text: str) -> Settings:
    """What operator and webhook read of the ConfigMap."""
    (config,) = [body for body in objects(text) if body["kind"] == "ConfigMap"]
    return parse_settings(config["data"]["config.json"])


@pytest.mark.parametrize("name", RENDERED)
def test_golden(name: str, golden: Golden) -> None:
    text = render(RENDERED[name])
    documents = text.split("---\n")
    # The resource definition is crds/asyncactors.yaml; a test below compares it whole.
    kept = [document for document in documents if "kind: CustomResourceDefinition" not in document]
    golden.check(f"chart/{name}.yaml", "---\n".join(kept))


@pytest.mark.parametrize("name", RENDERED)
def test_lint(name: str) -> None:
    values = [part for value in RENDERED[name] for part in ("--set", value)]
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "--kube-version", KUBE_VERSION, *values)


@pytest.mark.parametrize("name", RENDERED)
def test_operator_and_webhook_understand_their_settings(name: str) -> None:
    read = settings(render(RENDERED[name]))
    if name == "backends":
        assert (read.key_prefix, read.backends.s3.secret_name) == ("prod/", "bucket-keys")
        assert read.backends.redis.endpoint == "rediss://redis.databases:6379/1"
        assert read.backends.s3.env[0].name == "AWS_RETRY_MODE"
    if name == "openshift":
        assert read.proxy_uid == 0
    assert (read.certificates is None) == (name in ("cert-manager", "given-secret"))


def test_defaults_are_the_operators_own() -> None:
    own = Settings(proxyImage="asya-state-proxy:0.1.0", proxyImagePullPolicy="IfNotPresent")
    rendered = settings(render([]))
    assert rendered.model_copy(update={"certificates": None}) == own


def test_the_resource_definition_is_the_only_one_there_is() -> None:
    (rendered,) = [body for body in objects(render([])) if body["kind"] == "CustomResourceDefinition"]
    source = yaml.safe_load((ROOT / "crds" / "asyncactors.yaml").read_text())
    assert rendered["spec"] == source["spec"]
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "CustomResourceDefinition" not in render(["crds.install=false"])
    (dropped,) = [body for body in objects(render(["crds.keep=false"])) if body["kind"] == "CustomResourceDefinition"]
    assert "annotations" not in dropped["metadata"]


@pytest.mark.parametrize("name", ["defaults", "namespaces"])
def test_the_operators_rights_name_every_kind_it_uses_and_no_secret_of_an_actor(name: str) -> None:
    rules = [
        (body["kind"], body["metadata"].get("namespace"), rule)
        for body in objects(render(RENDERED[name]))
        if body["kind"] in ("ClusterRole", "Role") and not body["metadata"]["name"].endswith(("-view", "-edit"))
        for rule in body["rules"]
    ]
    granted = {resource for _, _, rule in rules for resource in rule["resources"]}
    assert {plural for _, plural in KINDS.values()} <= granted
    for kind, namespace, rule in rules:
        assert "*" not in [*rule["resources"], *rule["verbs"], *rule["apiGroups"]]
        if "secrets" in rule["resources"]:
            assert (kind, namespace) == ("Role", "asya-system")
            assert rule["verbs"] == ["create"] or rule["resourceNames"] == ["asya-webhook-certificate"]
        if name == "namespaces" and kind == "ClusterRole":
            assert set(rule["resources"]) <= {"mutatingwebhookconfigurations", "customresourcedefinitions"}


def test_every_pod_passes_the_restricted_standard_and_the_webhook_has_no_token() -> None:
    deployments = {b["metadata"]["name"]: b for b in objects(render([])) if b["kind"] == "Deployment"}
    for body in deployments.values():
        pod = body["spec"]["template"]["spec"]
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
    assert deployments["asya-webhook"]["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    # Nothing binds a right to its account.
    bound = [s["name"] for b in objects(render([])) if b["kind"].endswith("Binding") for s in b.get("subjects", [])]
    assert set(bound) == {"asya-operator"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("replicas=2", "additional properties 'replicas' not allowed"),
        ("stateProxy.backends.s3.endpont=x", "additional properties 'endpont' not allowed"),
        ("stateProxy.backends.redis.endpoint=redis://u:p@redis:6379", "does not match pattern"),
        ("logLevel=loud", "value must be one of 'debug', 'info', 'warning', 'error'"),
        ("webhook.replicas=0", "minimum: got 0, want 1"),
        ("certificates.mode=secret", "give the authorities to trust"),
        ("watchNamespaces={Team}", "does not match pattern"),
    ],
)
def test_values_that_mean_nothing_are_refused(value: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        render([value])


def test_every_value_is_described_and_in_the_schema() -> None:
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(values: Object, place: Object, path: str) -> None:
        for name, value in values.items():
            assert name in place["properties"], f"{path}{name} is not in values.schema.json"
            inner = place["properties"][name]
            if isinstance(value, dict) and "properties" in inner:
                walk(value, inner, f"{path}{name}.")

    walk(yaml.safe_load(text), schema, "")

    def closed(place: Object, path: str) -> None:
        if "properties" in place:
            assert place["additionalProperties"] is False, path
            for name, inner in place["properties"].items():
                closed(inner, f"{path}.{name}")

    closed(schema, "values")
