"""Conditions as a table: what is observed -> type, status, reason, and what the message tells to do."""

import datetime

import pytest

from asya_operator.api import parse_actor
from asya_operator.conditions import Observed, conditions
from support.actors import actor

NOW = datetime.datetime(2026, 5, 1, 12, 0, 0, tzinfo=datetime.UTC)
CHAT = parse_actor(actor(metadata__generation=7))
PLAIN = parse_actor(actor(spec__stateProxy=...))


def deployment(replicas=1, available=0, updated=None, total=None, generation=1, observed=1, rows=()):
    return {
        "metadata": {"generation": generation},
        "spec": {"replicas": replicas},
        "status": {
            "observedGeneration": observed,
            "replicas": replicas if total is None else total,
            "readyReplicas": available,
            "availableReplicas": available,
            "updatedReplicas": replicas if updated is None else updated,
            "conditions": list(rows),
        },
    }


def pod(init=(), main=(), injected=True):
    proxy = [{"name": "asya-state-proxy", "restartPolicy": "Always"}] if injected else []
    return {
        "metadata": {"name": "p"},
        "spec": {"initContainers": proxy},
        "status": {"initContainerStatuses": list(init), "containerStatuses": list(main)},
    }


def proxy(started=True, **more):
    return {"name": "asya-state-proxy", "started": started, "state": {"running": {}}, **more}


def crashed(name, message="", reason="Error", code=1):
    ended = {"exitCode": code, "reason": reason, "message": message}
    return {"name": name, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ended}}


def waiting(name, reason, message=""):
    return {"name": name, "state": {"waiting": {"reason": reason, "message": message}}}


def event(reason, message):
    return {"reason": reason, "message": message}


def rows(observed, who=CHAT):
    return {row["type"]: row for row in conditions(who, observed, NOW)["conditions"]}


WELL = Observed(deployment=deployment(available=1), pods=[pod(init=[proxy()])])
RUNC = 'error mounting "/var/lib/kubelet/.../state" to rootfs at "/state": not a directory: unknown'


def sick(*, pods=(), events=(), missing=()):
    return Observed(deployment=deployment(), pods=list(pods), events=list(events), missing_secrets=list(missing))


HOMELESS = pod()
HOMELESS["status"]["conditions"] = [
    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: x"}
]

# name -> (observed, type, status, reason, part of the message)
CASES = {
    "well": (WELL, "Ready", "True", "Available", "1 of 1 replicas answer"),
    "well-stable": (WELL, "Progressing", "False", "Stable", "up to date"),
    "well-not-degraded": (WELL, "Degraded", "False", "AsExpected", "nothing is wrong"),
    "well-state": (WELL, "StateReady", "True", "Reachable", "1 of 1 pods serve"),
    "nothing-yet": (Observed(), "Ready", "False", "Creating", "not there yet"),
    "zero": (Observed(deployment=deployment(0)), "Ready", "False", "ScaledToZero", "kubectl scale"),
    "partly": (Observed(deployment=deployment(3, 1)), "Ready", "True", "PartlyAvailable", "1 of 3"),
    "rolling": (Observed(deployment=deployment(2, 2, updated=1)), "Progressing", "True", "RollingOut", "1 of 2"),
    "not-seen-yet": (
        Observed(deployment=deployment(available=1, generation=2)), "Progressing", "True", "RollingOut", "",
    ),
    "deadline": (
        Observed(deployment=deployment(rows=[{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}])),
        "Degraded", "True", "DeadlineExceeded", "kubectl describe pod",
    ),
    "deadline-of-the-proxy": (
        Observed(deployment=deployment(rows=[{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]),
            pods=[pod(init=[proxy(started=False)])]),
        "Degraded", "True", "DeadlineExceeded", "no state proxy serves; see kubectl logs p -c asya-state-proxy",
    ),
    "fault": (
        Observed(fault=("NameTaken", "a Deployment is there")),
        "Degraded", "True", "NameTaken", "a Deployment is there",
    ),
    "fault-but-answering": (
        Observed(deployment=deployment(available=1), fault=("ApplyFailed", "no")), "Ready", "True", "Available", "",
    ),
    "secret": (sick(missing=["k"]), "StateReady", "False", "SecretMissing", "Secret 'k' does not exist; create it"),
    "secret-by-event": (
        sick(events=[event("FailedMount", 'MountVolume.SetUp failed for volume "x" : secret "k" not found')]),
        "StateReady", "False", "SecretMissing", "Secret 'k' does not exist",
    ),
    "guard": (
        sick(pods=[pod(init=[proxy()], main=[waiting("asya-runtime", "RunContainerError", RUNC)])]),
        "StateReady", "False", "GuardRefused", "set guard: directory",
    ),
    "not-injected": (sick(pods=[pod(injected=False)]), "StateReady", "False", "NotInjected", "has no asya-state-proxy"),
    "webhook-refused": (
        sick(events=[event("FailedCreate", 'admission webhook "state.asya.sh" denied the request: asya state: x')]),
        "Degraded", "True", "PodRefused", "asya state: x",
    ),
    "webhook-of-another-gone": (
        sick(events=[event("FailedCreate", 'failed calling webhook "mesh.example.com": refused')]),
        "Degraded", "True", "PodsNotCreated", "mesh.example.com",
    ),
    "policy-refused": (
        sick(events=[event("FailedCreate", "pods \"a-b\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' "
            "denied request: asya state: the pod has no sidecar")]),
        "Degraded", "True", "PodRefused", "has no sidecar",
    ),
    "refused-before-the-newest-pod": (
        sick(events=[event("FailedCreate", "denied: asya state: x") | {"lastTimestamp": "2026-01-01T00:00:00Z"}],
            pods=[{**pod(injected=False), "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}}]),
        "Degraded", "True", "NotInjected", "has no asya-state-proxy",
    ),
    "webhook-gone": (
        sick(events=[event("FailedCreate", 'Error creating: Internal error occurred: failed calling webhook '
            '"state-proxy.asya.sh": failed to call webhook: Post "https://w.s.svc:443/mutate?timeout=5s": refused')]),
        "Degraded", "True", "WebhookUnreachable", "the webhook must run",
    ),
    "quota": (
        sick(events=[event("FailedCreate", "exceeded quota: q")]),
        "Degraded", "True", "QuotaExceeded", "exceeded quota: q; raise the ResourceQuota",
    ),
    "service-account": (
        sick(events=[event("FailedCreate", 'Error creating: pods "a-" is forbidden: error looking up service account '
            'team-a/robot: serviceaccount "robot" not found')]),
        "Degraded", "True", "ServiceAccountMissing", "or correct spec.serviceAccountName",
    ),
    "key-missing": (
        sick(pods=[pod(init=[proxy()], main=[waiting("asya-runtime", "CreateContainerConfigError",
            "couldn't find key token in Secret team-a/keys")])]),
        "Degraded", "True", "ContainerConfig", "couldn't find key token in Secret team-a/keys; create",
    ),
    "bucket": (
        sick(pods=[pod(init=[crashed("asya-state-proxy", "bucket asya-actor-state does not exist")])]),
        "StateReady", "False", "BucketMissing", "create the bucket",
    ),
    "promise": (
        sick(pods=[pod(init=[crashed("asya-state-proxy", "PutObject ignores If-Match")])]),
        "StateReady", "False", "PromiseBroken", "use consistency lww",
    ),
    "denied": (
        sick(pods=[pod(init=[crashed("asya-state-proxy", "access denied for this key")])]),
        "StateReady", "False", "PermissionDenied", "check the Secret",
    ),
    "proxy-unknown": (
        sick(pods=[pod(init=[crashed("asya-state-proxy", "something else")])]),
        "StateReady", "False", "ProxyFailed", "kubectl logs -c asya-state-proxy",
    ),
    "handler": (
        sick(pods=[pod(init=[proxy()], main=[crashed("asya-runtime", "No module named 'agent'")])]),
        "Degraded", "True", "HandlerCrashing", "No module named 'agent'",
    ),
    "handler-leaves-the-state-alone": (
        sick(pods=[pod(init=[proxy()], main=[crashed("asya-runtime")])]), "StateReady", "True", "Reachable", "",
    ),
    "memory": (
        sick(pods=[pod(init=[proxy()], main=[crashed("asya-runtime", reason="OOMKilled", code=137)])]),
        "Degraded", "True", "OutOfMemory", "raise it",
    ),
    "image": (
        sick(pods=[pod(init=[proxy()], main=[waiting("asya-runtime", "ImagePullBackOff", "not found")])]),
        "Degraded", "True", "ImageNotPulled", "container asya-runtime: not found; correct image,",
    ),
    "starting": (
        sick(pods=[pod(init=[proxy(started=False)])]),
        "StateReady", "False", "Starting", "kubectl logs p -c asya-state-proxy",
    ),
    "starting-is-not-ready": (
        sick(pods=[pod(init=[proxy(started=False)])]),
        "Ready", "False", "Unavailable", "see kubectl logs p -c asya-state-proxy",
    ),
    "importing": (sick(pods=[pod(init=[proxy()])]), "Ready", "False", "Unavailable", "see kubectl get pods"),
    "no-node": (sick(pods=[HOMELESS]), "Ready", "False", "Unschedulable", "p has no node: 0/1 nodes are available: x;"),
    "no-node-and-no-proxy": (sick(pods=[HOMELESS]), "StateReady", "False", "Unschedulable", "0/1 nodes"),
    "no-node-yet": (sick(pods=[HOMELESS]), "Degraded", "False", "AsExpected", ""),
    "no-node-for-long": (
        Observed(deployment=deployment(rows=[{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]),
            pods=[HOMELESS]),
        "Degraded", "True", "Unschedulable", "0/1 nodes",
    ),
    "no-pods": (Observed(deployment=deployment(0)), "StateReady", "Unknown", "NoPods", ""),
    "scaled": (
        Observed(deployment=deployment(available=1), scaled_externally="keda"),
        "ScaledExternally", "True", "OwnedByAnother", "keda owns the replicas",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_condition(name):
    observed, kind, status, reason, message = CASES[name]
    row = rows(observed)[kind]
    assert (row["status"], row["reason"]) == (status, reason)
    assert message in row["message"]


def test_without_state_there_is_no_word_of_it():
    assert set(rows(WELL, PLAIN)) == {"Ready", "Progressing", "Degraded"}


def test_a_weak_guard_is_a_condition():
    weak = parse_actor(actor(spec__stateProxy__guard="directory"))
    assert rows(WELL, weak)["GuardWeak"]["message"].startswith("guard: directory at /state:")
    assert "GuardWeak" not in rows(WELL)


def test_counts_and_generation():
    status = conditions(CHAT, WELL, NOW)
    assert {name: status[name] for name in ("observedGeneration", "replicas", "readyReplicas", "selector")} == {
        "observedGeneration": 7,
        "replicas": 1,
        "readyReplicas": 1,
        "selector": "asya.sh/actor=chat-agent",
    }
    assert all(row["observedGeneration"] == 7 for row in status["conditions"])


def test_the_time_moves_with_the_status_alone_and_never_back():
    def ready(observed, previous, now):
        status = conditions(CHAT, Observed(**{**vars(observed), "previous": previous}), now)
        return status, next(row for row in status["conditions"] if row["type"] == "Ready")

    minute = datetime.timedelta(minutes=1)
    first, row = ready(WELL, {}, NOW)
    assert row["lastTransitionTime"] == "2026-05-01T12:00:00Z"
    second, row = ready(WELL, first, NOW + minute)
    assert (row["lastTransitionTime"], second) == ("2026-05-01T12:00:00Z", first)
    third, row = ready(sick(), second, NOW + 2 * minute)
    assert (row["status"], row["lastTransitionTime"]) == ("False", "2026-05-01T12:02:00Z")
    _, row = ready(WELL, third, NOW - 60 * minute)
    assert (row["status"], row["lastTransitionTime"]) == ("True", "2026-05-01T12:02:00Z")


def test_a_long_message_is_cut():
    long = Observed(fault=("ApplyFailed", "x" * 5000))
    assert all(len(row["message"]) <= 1024 for row in rows(long).values())
