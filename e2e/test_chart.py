"""The rendered chart, by Helm's own engine: golden files, the values' schema, and what the operator reads of it."""

import json
import re
from collections.abc import Sequence

import pytest
import yaml
from asya_contract.names import ACTOR_LABEL
from asya_operator.api.patterns import SCHEMES_OF
from asya_operator.inject import PORT_NAME
from asya_operator.kube import KINDS
from asya_operator.settings import Settings, parse_settings
from asya_operator.state import _ENDPOINT_VARIABLE
from asya_proxy import settings as proxy_settings

from rig.chart import CERTIFICATE, CHART, FOREIGN, KUBE_VERSION, RENDERED, everything, helm, objects, render
from rig.cluster import ROOT, Object
from rig.schemas import VERSIONS, Schemas
from support.golden import Golden

OPTIONAL = {"NetworkPolicy", "PodMonitor", "PriorityClass", "ServiceMonitor", "PersistentVolumeClaim", "Pod", "Secret"}


def settings(text: str) -> Settings:
    """What operator and webhook read of the ConfigMap."""
    (config,) = [body for body in objects(text) if body["kind"] == "ConfigMap"]
    return parse_settings(config["data"]["config.json"])


def documents(text: str) -> list[str]:
    """What was rendered, object by object, but for the resource definition: a test below compares it whole."""
    return [part for part in text.split("---\n") if part and "kind: CustomResourceDefinition" not in part]


@pytest.mark.parametrize("name", RENDERED)
def test_golden(name: str, golden: Golden) -> None:
    """All of the defaults; else what is not as it is by default, and the names of what is left out."""
    usual, found = documents(render(RENDERED["defaults"])), documents(render(RENDERED[name]))
    if name != "defaults":
        named = {(body["kind"], body["metadata"]["name"]) for body in objects(render(RENDERED[name]))}
        gone = [
            f"# {body['kind']} {body['metadata']['name']} is not there.\n"
            for body in objects(render(RENDERED["defaults"]))
            if (body["kind"], body["metadata"]["name"]) not in named
        ]
        found = [*gone, *(document for document in found if document not in usual)]
    golden.check(f"chart/{name}.yaml", "---\n".join(found))


@pytest.fixture(scope="module", params=VERSIONS)
def schemas(request: pytest.FixtureRequest) -> Schemas:
    return Schemas(request.param)


def test_every_supported_kubernetes_takes_every_object(schemas: Schemas) -> None:
    known = [body for body in everything() if body["apiVersion"] not in FOREIGN]
    assert {body["kind"] for body in known} > OPTIONAL - {"PodMonitor", "ServiceMonitor"}
    errors = {f"{body['kind']} {body['metadata']['name']}": schemas.errors(body) for body in known}
    assert not {name: found for name, found in errors.items() if found}


def test_a_field_that_kubernetes_does_not_know_is_an_error(schemas: Schemas) -> None:
    (body,) = [b for b in objects(render([])) if b["kind"] == "Deployment" and b["metadata"]["name"] == "asya-webhook"]
    broken = yaml.safe_load(yaml.safe_dump(body))
    broken["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["prot"] = 1
    assert [where for where, _ in schemas.errors(broken)] == ["spec.template.spec.containers.0.readinessProbe.httpGet"]


def test_the_chart_asks_for_the_oldest_kubernetes_that_is_checked() -> None:
    wanted = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    assert wanted == f">={VERSIONS[0]}.0-0"


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
    assert rendered.model_copy(update={"certificates": None, "webhook": None}) == own


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
    bodies = objects(render(RENDERED["quickstart"]))
    deployments = {b["metadata"]["name"]: b for b in bodies if b["kind"] == "Deployment"}
    for pod in [body["spec"]["template"]["spec"] for body in deployments.values()] + [
        races(RENDERED["quickstart"])["spec"]
    ]:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["securityContext"].get("runAsUser") != 0
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
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
        (
            "stateProxy.backends.redis.endpoint=redis://u:p@redis:6379",
            "stateProxy.backends.redis.endpoint: a URL with user or password would be seen by everybody who sees a "
            "pod; leave them out, and put them as REDIS_URL into the Secret",
        ),
        (
            "stateProxy.backends.s3.endpoint=s3.example.com",
            'stateProxy.backends.s3.endpoint: "s3.example.com" is no URL of s3; give one such as https://s3.example.com',
        ),
        ("stateProxy.keyPrefix=prod", 'stateProxy.keyPrefix: "prod": give segments of letters, digits,'),
        ("logLevel=loud", "value must be one of 'debug', 'info', 'warning', 'error'"),
        ("webhook.replicas=0", "minimum: got 0, want 1"),
        ("certificates.mode=secret", "give the authorities to trust"),
        ("certificates.mode=secret,certificates.caBundle=TUlORQ==", "make it with `base64 -w0 ca.crt`"),
        (f"certificates.caBundle={CERTIFICATE}", "certificates.mode is `operator`, which brings its own"),
        ("quickstart.enabled=true,stateProxy.backends.s3.endpoint=https://s3", "names another; leave one out"),
        ("quickstart.buckets=null", "quickstart.buckets: name at least one bucket"),
        ("test.backend=nats", "test.bucket: name the bucket that `helm test` tries nats with"),
        ("test.backend=sqlite", "value must be one of '', 's3', 'gcs', 'redis', 'nats'"),
        ("monitoring.podMonitor.interval=fast", "does not match pattern"),
        ("watchNamespaces={Team}", "does not match pattern"),
    ],
)
def test_values_that_mean_nothing_are_refused(value: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        render([value])


@pytest.mark.parametrize("backend", SCHEMES_OF)
def test_an_endpoint_may_have_the_schemes_that_an_actor_may_give(backend: str) -> None:
    for scheme in SCHEMES_OF[backend]:
        render([f"stateProxy.backends.{backend}.endpoint={scheme}://host:1234"])
    with pytest.raises(ValueError, match=f"no URL of {backend}"):
        render([f"stateProxy.backends.{backend}.endpoint=ftp://host:1234"])


def test_what_is_optional_is_off() -> None:
    assert not {body["kind"] for body in objects(render([]))} & OPTIONAL


def races(values: Sequence[str]) -> Object:
    (pod,) = [body for body in objects(render(values)) if body["kind"] == "Pod"]
    return pod


def test_the_proxy_understands_what_helm_test_tells_it() -> None:
    for values, backend in ((RENDERED["test"], "redis"), (RENDERED["quickstart"], "s3")):
        (container,) = races(values)["spec"]["containers"]
        environ = {entry["name"]: entry["value"] for entry in container["env"]}
        (mount,) = proxy_settings.load(environ).mounts
        assert mount.backend == backend
        assert environ[_ENDPOINT_VARIABLE[backend]] == settings(render(values)).defaults(backend).endpoint
    assert (mount.env.bucket, mount.cas) == ("asya-state", True)
    assert environ["STATE_PREFIX"] == "asya-system/asya-test/"
    for backend, variable in _ENDPOINT_VARIABLE.items():
        endpoint = f"{SCHEMES_OF[backend][0]}://host:1234"
        pod = races([f"test.backend={backend},test.bucket=actors,stateProxy.backends.{backend}.endpoint={endpoint}"])
        assert {"name": variable, "value": endpoint} in pod["spec"]["containers"][0]["env"]


def test_the_quickstart_is_the_default_of_s3_and_says_what_it_is() -> None:
    bodies = objects(render(RENDERED["quickstart-volume"]))
    read = settings(render(RENDERED["quickstart-volume"])).backends.s3
    (service,) = [b for b in bodies if b["kind"] == "Service" and b["metadata"]["name"].endswith("-s3")]
    assert (
        read.endpoint == f"http://{service['metadata']['name']}.asya-system.svc:{service['spec']['ports'][0]['port']}"
    )
    secrets = {b["metadata"]["namespace"]: b["metadata"]["name"] for b in bodies if b["kind"] == "Secret"}
    assert secrets == dict.fromkeys(("asya-system", "team-a", "team-b"), read.secret_name)
    ours = [b for b in bodies if b["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "quickstart-s3"]
    assert {b["kind"] for b in ours} == {"Secret", "Deployment", "Service", "PersistentVolumeClaim"}
    assert all("first try only" in b["metadata"]["annotations"]["asya.sh/not-for-production"] for b in ours)
    watched = objects(render(["quickstart.enabled=true", "watchNamespaces={team-a}"]))
    assert {b["metadata"]["namespace"] for b in watched if b["kind"] == "Secret"} == {"asya-system", "team-a"}


def test_network_policies_let_in_what_listens_and_nobody_else() -> None:
    bodies = objects(render(RENDERED["network-policies"]))
    deployments = {b["metadata"]["name"]: b["spec"]["template"] for b in bodies if b["kind"] == "Deployment"}
    policies = {b["metadata"]["name"]: b["spec"] for b in bodies if b["kind"] == "NetworkPolicy"}
    assert set(policies) == set(deployments)
    for name, policy in policies.items():
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        labels = deployments[name]["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
        others = [pod["metadata"]["labels"] for other, pod in deployments.items() if other != name]
        assert not any(policy["podSelector"]["matchLabels"].items() <= labels.items() for labels in others)
        listening = [p["name"] for c in deployments[name]["spec"]["containers"] for p in c["ports"]]
        assert sorted(port["port"] for rule in policy["ingress"] for port in rule["ports"]) == sorted(listening)
    assert policies["asya-operator"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    assert not policies["asya-webhook"].get("egress")
    # Reviews come from the API server, which is no pod; metrics from whom the values name.
    reviews, metrics = policies["asya-webhook"]["ingress"]
    assert "from" not in reviews
    assert metrics["from"] == [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]
    # The test's own pod reaches the quickstart's server.
    test_labels = races(RENDERED["network-policies"])["metadata"]["labels"]
    selectors = [s["podSelector"]["matchLabels"] for s in policies["asya-quickstart-s3"]["ingress"][0]["from"]]
    assert any(selector.items() <= test_labels.items() for selector in selectors)


def test_monitors_find_the_ports_of_metrics() -> None:
    bodies = objects(render(RENDERED["monitors"]))
    (service_monitor,) = [b["spec"] for b in bodies if b["kind"] == "ServiceMonitor"]
    wanted = service_monitor["selector"]["matchLabels"].items()
    services = [b for b in bodies if b["kind"] == "Service" and wanted <= b["metadata"]["labels"].items()]
    assert {b["metadata"]["name"] for b in services} == {"asya-operator", "asya-webhook"}
    for service in services:
        ports = {port["name"]: port["targetPort"] for port in service["spec"]["ports"]}
        assert ports[service_monitor["endpoints"][0]["port"]] == "health"
    (pod_monitor,) = [b["spec"] for b in bodies if b["kind"] == "PodMonitor"]
    assert pod_monitor["selector"] == {"matchExpressions": [{"key": ACTOR_LABEL, "operator": "Exists"}]}
    assert [endpoint["port"] for endpoint in pod_monitor["podMetricsEndpoints"]] == [PORT_NAME, "http"]


def test_rules_and_dashboard_are_those_of_the_files() -> None:
    """What they say is tested in tests/house/test_monitoring.py."""
    values = ["prometheusRule.enabled=true", "prometheusRule.labels.release=prometheus", "dashboard.enabled=true"]
    bodies = objects(render([f"monitoring.{value}" for value in values]))
    (rule,) = [b for b in bodies if b["kind"] == "PrometheusRule"]
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    (dashboard,) = [b for b in bodies if b["kind"] == "ConfigMap" and b["metadata"]["name"].endswith("-dashboard")]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["asya-state.json"]) == json.loads(
        (CHART / "files" / "dashboard.json").read_text()
    )
    published = [
        "monitoring.prometheusRule.enabled=true",
        "monitoring.prometheusRule.runbookUrl=https://docs.example/asya",
    ]
    (rule,) = [b for b in objects(render(published)) if b["kind"] == "PrometheusRule"]
    for alert in [alert for group in rule["spec"]["groups"] for alert in group["rules"]]:
        url = alert["annotations"]["runbook_url"]
        assert url == f"https://docs.example/asya/operations/alerts/#{alert['alert'].lower()}"


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
