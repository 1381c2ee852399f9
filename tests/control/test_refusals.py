"""What the API server refuses the operator, in its own words: rights, quotas, limits, policies -> a condition or, where
there is no way to write one, a log line; with what to do next."""

import asyncio
import datetime
import re
from pathlib import Path

import pytest
import yaml

from asya_operator.inject import inject
from asya_operator.kube import Kube, KubeError
from asya_operator.reconcile import Reconciler
from support.actors import actor
from support.kube import USER, USER_TOKEN
from support.operator_process import operator_process
from support.pods import SETTINGS as WEBHOOK_SETTINGS
from support.pods import pod
from support.running_operator import SETTINGS, eventually, running

RBAC = "/apis/rbac.authorization.k8s.io/v1"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
TEMPLATE = Path(__file__).parents[2] / "chart" / "templates" / "operator" / "_rules.tpl"
RULES = yaml.safe_load(re.search(r'define "asya.actorRules" -}}\n(.*?){{- end', TEMPLATE.read_text(), re.DOTALL)[1])


@pytest.fixture(scope="session")
def user(kube):
    """The kubeconfig of a user who may see our resource definition, as the chart's operator may, and nothing else."""
    rules = [
        {
            "apiGroups": ["apiextensions.k8s.io"],
            "resources": ["customresourcedefinitions"],
            "resourceNames": ["asyncactors.asya.sh"],
            "verbs": ["get"],
        }
    ]
    role = {"metadata": {"name": "definitions"}, "rules": rules}
    assert kube.request("POST", f"{RBAC}/clusterroles", json=role).status_code == 201
    binding = {"metadata": {"name": "definitions"}, **_bound("ClusterRole", "definitions")}
    assert kube.request("POST", f"{RBAC}/clusterrolebindings", json=binding).status_code == 201
    return kube.kubeconfig_of(USER_TOKEN, "user")


def _bound(kind, name):
    return {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "User", "name": USER}],
    }


def grant(cluster, without=("", "")):
    """The chart's rights in a namespace, but for one verb on one resource."""
    resource, verb = without
    rules = [
        {**rule, "verbs": [v for v in rule["verbs"] if not (v == verb and resource in rule["resources"])]}
        for rule in RULES
    ]
    assert (rules == RULES) == (without == ("", "")), f"the chart does not grant {without}"
    path = f"{RBAC}/namespaces/{cluster.namespace}"
    role = {"metadata": {"name": "operator"}, "rules": [rule for rule in rules if rule["verbs"]]}
    assert cluster.kube.request("POST", f"{path}/roles", json=role).status_code == 201
    binding = {"metadata": {"name": "operator"}, **_bound("Role", "operator")}
    assert cluster.kube.request("POST", f"{path}/rolebindings", json=binding).status_code == 201


@pytest.fixture
async def passes(user):
    """Passes of the operator as that user, one by one."""
    kube = await Kube.connect(str(user))
    yield Reconciler(kube, SETTINGS)
    await kube.close()


@pytest.fixture
async def admins_passes(cluster):
    """Passes of an operator that may do everything."""
    kube = await Kube.connect(str(cluster.kube.kubeconfig))
    yield Reconciler(kube, SETTINGS)
    await kube.close()


async def granted(cluster, user):
    """Until the authorizer knows the new role."""
    kube = await Kube.connect(str(user))
    try:
        for _ in range(200):
            try:
                return await kube.list("Pod", cluster.namespace)
            except KubeError:
                pass
            try:
                return await kube.get("Namespace", None, cluster.namespace) and await kube.list(
                    "Event", cluster.namespace
                )
            except KubeError:
                continue
        raise AssertionError("the rights did not arrive")
    finally:
        await kube.close()


async def test_the_charts_rights_are_enough_and_work_begins_at_once(cluster, user, monkeypatch, caplog):
    grant(cluster)
    await granted(cluster, user)
    monkeypatch.setenv("KUBECONFIG", str(user))
    async with running(cluster, kubeconfig=user):
        cluster.create("asyncactors", actor(spec__deletionPolicy="Delete"))
        await eventually(lambda: cluster.get("services"))
        await eventually(lambda: cluster.condition("Ready"))
        cluster.delete("asyncactors")
        await eventually(lambda: cluster.get("jobs", "chat-agent-purge"))
    assert "forbidden" not in caplog.text


# (resource, verb) of which there is a condition without.
TOLD = [
    ("asyncactors", "patch"),
    ("deployments", "get"),
    ("deployments", "create"),
    ("deployments", "patch"),
    ("services", "get"),
    ("services", "create"),
    ("services", "patch"),
    ("services", "delete"),
    ("pods", "list"),
    ("events", "list"),
]


@pytest.mark.parametrize(("resource", "verb"), TOLD, ids=[f"{verb}-{resource}" for resource, verb in TOLD])
async def test_a_missing_right_is_a_condition(cluster, passes, admins_passes, user, resource, verb):
    body = actor(spec__deletionPolicy="Delete" if resource == "asyncactors" else "Retain")
    cluster.create("asyncactors", body)
    if verb == "delete":
        await admins_passes.reconcile(cluster.namespace, "chat-agent")
        cluster.patch("asyncactors", "chat-agent", {"spec": {"service": {"enabled": False}}})
    grant(cluster, (resource, verb))
    await granted(cluster, user)
    await passes.reconcile(cluster.namespace, "chat-agent")
    row = cluster.condition("Degraded")
    assert (row["status"], row["reason"]) == ("True", "PermissionMissing")
    assert f'User "{USER}" cannot {verb} resource "{resource}"' in row["message"]
    assert row["message"].endswith("; give the operator this right: the chart's role has it")


@pytest.mark.parametrize(("resource", "verb"), [("asyncactors", "get"), ("asyncactors/status", "patch")])
async def test_a_missing_right_to_the_actor_fails_the_pass(cluster, passes, user, resource, verb):
    """Then there is no place for a condition; the log has the words, and the pass is tried again."""
    cluster.create("asyncactors", actor())
    grant(cluster, (resource, verb))
    await granted(cluster, user)
    with pytest.raises(KubeError, match=f'User "{USER}" cannot {verb} resource "{resource}"'):
        await passes.reconcile(cluster.namespace, "chat-agent")


async def test_without_a_right_to_write_events_the_rest_goes_on(cluster, passes, user, caplog):
    cluster.create("asyncactors", actor())
    grant(cluster, ("events", "create"))
    await granted(cluster, user)
    await passes.reconcile(cluster.namespace, "chat-agent")
    assert cluster.condition("Ready")["reason"] == "Unavailable"
    assert any(record.message == "event not written" for record in caplog.records)


@pytest.mark.parametrize(
    ("resource", "verb"),
    [("namespaces", "get"), ("deployments", "delete"), ("pods", "list"), ("jobs", "get"), ("jobs", "create")],
)
async def test_a_purge_that_is_refused_lets_go_after_three_attempts(
    cluster, passes, admins_passes, user, resource, verb
):
    cluster.create("asyncactors", actor(spec__deletionPolicy="Delete"))
    await admins_passes.reconcile(cluster.namespace, "chat-agent")
    cluster.delete("asyncactors")
    grant(cluster, (resource, verb))
    await granted(cluster, user)
    for _ in range(6):
        await passes.reconcile(cluster.namespace, "chat-agent")
    assert cluster.get("asyncactors") is None
    told = [event[1] for event in cluster.events()]
    assert (told.count("PurgeRefused"), told.count("StateNotPurged")) == (2, 1)
    (words,) = [message for _, reason, message in cluster.events() if reason == "StateNotPurged"]
    assert words.startswith("3 attempts to purge the state were refused")
    assert f'cannot {verb} resource "{resource}"' in words


async def test_a_watch_that_is_not_allowed_ends_the_process_by_name(cluster, user, tmp_path):
    """After some attempts; nobody would notice an operator that is deaf for good."""
    grant(cluster, ("deployments", "watch"))
    await granted(cluster, user)
    with operator_process(cluster, tmp_path, kubeconfig=user) as process:
        assert await asyncio.to_thread(process.wait, 60) == 1
        assert 'cannot watch resource \\"deployments\\"' in process.log()


def _quota(cluster, hard):
    """A quota as its controller leaves it."""
    path = f"/api/v1/namespaces/{cluster.namespace}/resourcequotas"
    body = {"metadata": {"name": "q"}, "spec": {"hard": hard}}
    assert cluster.kube.request("POST", path, json=body).status_code == 201
    status = {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
    cluster.patch("resourcequotas", "q", status, "/status")


def _policy(cluster, resource, group):
    """A ValidatingAdmissionPolicy of somebody else's, in this namespace."""
    name = f"theirs-{cluster.namespace}"
    here = {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}}
    spec = {
        "matchConstraints": {
            "namespaceSelector": here,
            "resourceRules": [
                {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}
            ],
        },
        "validations": [{"expression": "'team' in object.metadata.labels", "message": "label team is missing"}],
    }
    path = f"{ADMISSION}/validatingadmissionpolicies"
    assert cluster.kube.request("POST", path, json={"metadata": {"name": name}, "spec": spec}).status_code == 201
    binding = {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
    assert (
        cluster.kube.request("POST", f"{ADMISSION}/validatingadmissionpolicybindings", json=binding).status_code == 201
    )


def _limits(cluster, **limits):
    path = f"/api/v1/namespaces/{cluster.namespace}/limitranges"
    body = {"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", **limits}]}}
    assert cluster.kube.request("POST", path, json=body).status_code == 201


def _restricted(cluster):
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    path = f"/api/v1/namespaces/{cluster.namespace}"
    headers = {"Content-Type": "application/merge-patch+json"}
    assert cluster.kube.request("PATCH", path, json=labels, headers=headers).status_code == 200


# name -> (what is set up, reason, the API server's words, the next step)
DEPLOYMENTS = {
    "quota": (
        lambda c: _quota(c, {"count/deployments.apps": "0"}),
        "QuotaExceeded", "exceeded quota: q, requested: count/deployments.apps=1", "raise the ResourceQuota",
    ),
    "policy": (
        lambda c: _policy(c, "deployments", "apps"),
        "PolicyDenied", "denied request: label team is missing", "change what the policy names",
    ),
}  # fmt: skip
PODS = {
    "quota": (
        lambda c: _quota(c, {"pods": "0"}), "QuotaExceeded", "exceeded quota: q, requested: pods=1", "raise the",
    ),
    "quota-wants-limits": (
        lambda c: _quota(c, {"limits.memory": "1Gi"}),
        "QuotaExceeded", "must specify limits.memory for: asya-runtime", "set what it names in spec.resources",
    ),
    "limit-minimum": (
        lambda c: _limits(c, min={"cpu": "200m"}),
        "LimitRangeViolated", "minimum cpu usage per Container is 200m", "within the LimitRange",
    ),
    "limit-forced-below-request": (
        lambda c: _limits(c, default={"cpu": "10m"}),
        "LimitRangeViolated", "must be less than or equal to cpu limit of 10m", "within the LimitRange",
    ),
    "policy": (
        lambda c: _policy(c, "pods", ""), "PolicyDenied", "denied request: label team is missing", "change what the",
    ),
    "pod-security": (
        _restricted, "PodSecurityViolated", 'violates PodSecurity "restricted', "set the securityContext",
    ),
}  # fmt: skip


async def _refusal(cluster, kind, body):
    """The API server's words; quotas and policies are in use a moment after they are written."""

    def refused():
        answer = cluster.kube.request("POST", cluster.path(kind), json=body, params={"dryRun": "All"})
        return answer.json()["message"] if answer.status_code in (403, 422) else None

    return await eventually(refused)


def _is_told(cluster, reason, words, step):
    row = cluster.condition("Degraded")
    assert (row["status"], row["reason"]) == ("True", reason)
    assert words in row["message"]
    assert step in row["message"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
async def test_a_refused_deployment_is_a_condition(cluster, admins_passes, name):
    set_up, reason, words, step = DEPLOYMENTS[name]
    set_up(cluster)
    cluster.create("asyncactors", actor())
    await _refusal(cluster, "deployments", {"apiVersion": "apps/v1", **_deployment("probe")})
    again = await admins_passes.reconcile(cluster.namespace, "chat-agent")
    _is_told(cluster, reason, words, step)
    assert again is not None, "nobody would try again"
    assert cluster.get("deployments") is None


def _deployment(name):
    container = {"name": "c", "image": "i"}
    labels = {"a": "b"}
    return {
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


@pytest.mark.parametrize("name", PODS)
async def test_a_refused_pod_is_a_condition(cluster, admins_passes, name):
    """The pod is tried as the ReplicaSet controller does, and its event written as it writes it."""
    set_up, reason, words, step = PODS[name]
    set_up(cluster)
    cluster.create("asyncactors", actor())
    await admins_passes.reconcile(cluster.namespace, "chat-agent")
    said = await _refusal(cluster, "pods", inject(pod(), cluster.namespace, WEBHOOK_SETTINGS))
    event = {
        "metadata": {"generateName": "e-"},
        "involvedObject": {"kind": "ReplicaSet", "name": "chat-agent-5d8f", "namespace": cluster.namespace},
        "type": "Warning",
        "reason": "FailedCreate",
        "message": f"Error creating: {said}",
        "lastTimestamp": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    cluster.create("events", event)
    await admins_passes.reconcile(cluster.namespace, "chat-agent")
    _is_told(cluster, reason, words, step)
