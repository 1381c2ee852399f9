"""`conditions(actor, observed, now) -> status`: what is the matter with an actor, in conditions; pure.

Reasons are stable words that tools may match; messages are for people and end with what to do next.
A condition's lastTransitionTime moves only when its status does, and never backwards.

    Ready            it answers
    Progressing      a change is on its way
    Degraded         something needs a hand
    StateReady       the state is reachable (actors with state)
    GuardWeak        a guard is a directory (those actors only)
    ScaledExternally somebody else owns the number of replicas (those actors only)
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asya_contract.names import ACTOR_LABEL, INSTALL_CONTAINER, PROXY_CONTAINER, RUNTIME_CONTAINER
from asya_operator import refusals
from asya_operator.api import AsyncActor

Status = dict[str, Any]
LONGEST_MESSAGE = 1024


@dataclass(frozen=True)
class Observed:
    """What was read from the cluster. `fault` is what kept the operator from applying (reason, message)."""

    deployment: Mapping[str, Any] | None = None
    pods: Sequence[Mapping[str, Any]] = ()
    # Warning events of the pods, the newest last.
    events: Sequence[Mapping[str, Any]] = ()
    missing_secrets: Sequence[str] = ()
    fault: tuple[str, str] | None = None
    scaled_externally: str | None = None
    previous: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """One row before it has its times."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True)
class Trouble:
    """Something wrong with the pods. `state` says whether the state is what fails."""

    reason: str
    message: str
    state: bool


# The proxy's last words -> reason. The first that matches counts.
_LAST_WORDS: tuple[tuple[str, str], ...] = (
    (r"bucket.*(does not exist|not found|missing|no such)|no such bucket|NoSuchBucket", "BucketMissing"),
    (r"ignore[sd]|promise|lacks what cas needs|does not keep", "PromiseBroken"),
    (r"credential|denied|forbidden|permission|NOAUTH|WRONGPASS|authori[sz]ation", "PermissionDenied"),
    (r"region", "WrongRegion"),
    (r"unreachable|refused|time.?out|resolve|no route", "Unreachable"),
)
_NEXT = {
    "BucketMissing": "create the bucket, or correct stateProxy.bucket",
    "PromiseBroken": "use consistency lww, or a backend that keeps it",
    "PermissionDenied": "check the Secret or the identity of the service account",
    "WrongRegion": "correct stateProxy.region",
    "Unreachable": "check stateProxy.endpoint and the network policies",
    "ProxyFailed": "see kubectl logs -c asya-state-proxy",
}


def conditions(actor: AsyncActor, observed: Observed, now: datetime.datetime) -> Status:
    """The whole `status` of an actor."""
    deployment = observed.deployment or {}
    counts = deployment.get("status") or {}
    rows = [
        *_main(actor, observed),
        *_state(actor, observed),
        *_notes(actor, observed),
    ]
    generation = actor.metadata.generation or 0
    return {
        "observedGeneration": generation,
        "replicas": counts.get("replicas", 0),
        "readyReplicas": counts.get("readyReplicas", 0),
        "selector": f"{ACTOR_LABEL}={actor.name}",
        "conditions": [_timed(row, observed.previous, generation, now) for row in rows],
    }


def _timed(row: Condition, previous: Mapping[str, Any], generation: int, now: datetime.datetime) -> dict[str, Any]:
    last = next((c for c in previous.get("conditions") or [] if c.get("type") == row.type), None)
    stamp = now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if last is not None:
        before = str(last.get("lastTransitionTime", ""))
        stamp = before if last.get("status") == row.status and before else max(before, stamp)
    return {
        "type": row.type,
        "status": row.status,
        "reason": row.reason,
        "message": row.message[:LONGEST_MESSAGE],
        "observedGeneration": generation,
        "lastTransitionTime": stamp,
    }


def _main(actor: AsyncActor, observed: Observed) -> list[Condition]:
    if observed.fault is not None:
        reason, message = observed.fault
        ready = _ready(observed.deployment) if observed.deployment else Condition("Ready", "False", reason, message)
        return [
            ready,
            Condition("Progressing", "False", reason, message),
            Condition("Degraded", "True", reason, message),
        ]
    if observed.deployment is None:
        waiting = "the Deployment is not there yet"
        return [
            Condition("Ready", "False", "Creating", waiting),
            Condition("Progressing", "True", "Creating", waiting),
            Condition("Degraded", "False", "AsExpected", "nothing is wrong"),
        ]
    trouble, homeless = worst(actor, observed), _unschedulable(observed)
    progressing = _progressing(observed.deployment)
    ready = _ready(observed.deployment)
    if ready.status == "False" and (why := trouble or homeless):
        ready = Condition("Ready", "False", why.reason, why.message)
    silent = _without_proxy(actor, observed)
    if ready.reason == "Unavailable" and silent is not None:
        ready = Condition("Ready", "False", ready.reason, f"none of its replicas answers yet; see {_proxy_log(silent)}")
    if trouble is not None:
        degraded = Condition("Degraded", "True", trouble.reason, trouble.message)
    elif progressing.reason == "DeadlineExceeded":
        # Before that a node may be on its way.
        stuck = homeless or progressing
        message = stuck.message if homeless or silent is None else f"no state proxy serves; see {_proxy_log(silent)}"
        degraded = Condition("Degraded", "True", stuck.reason, message)
    else:
        degraded = Condition("Degraded", "False", "AsExpected", "nothing is wrong")
    return [ready, progressing, degraded]


def _wanted(deployment: Mapping[str, Any]) -> int:
    replicas = (deployment.get("spec") or {}).get("replicas")
    return 1 if replicas is None else int(replicas)


def _ready(deployment: Mapping[str, Any] | None) -> Condition:
    assert deployment is not None
    wanted, status = _wanted(deployment), deployment.get("status") or {}
    available = status.get("availableReplicas", 0)
    if wanted == 0:
        return Condition("Ready", "False", "ScaledToZero", "it has no replicas; kubectl scale it to 1 or more")
    if available >= wanted:
        return Condition("Ready", "True", "Available", f"{available} of {wanted} replicas answer")
    if available > 0:
        return Condition("Ready", "True", "PartlyAvailable", f"{available} of {wanted} replicas answer")
    return Condition("Ready", "False", "Unavailable", f"none of {wanted} replicas answers yet; see kubectl get pods")


def _progressing(deployment: Mapping[str, Any]) -> Condition:
    status = deployment.get("status") or {}
    wanted = _wanted(deployment)
    for row in status.get("conditions") or []:
        if row.get("type") == "Progressing" and row.get("reason") == "ProgressDeadlineExceeded":
            message = "the new pods did not become ready in time; see kubectl describe pod"
            return Condition("Progressing", "False", "DeadlineExceeded", message)
    behind = status.get("observedGeneration", 0) < (deployment.get("metadata") or {}).get("generation", 0)
    updated, total = status.get("updatedReplicas", 0), status.get("replicas", 0)
    if behind or updated < wanted or total > updated or status.get("availableReplicas", 0) < wanted:
        return Condition("Progressing", "True", "RollingOut", f"{updated} of {wanted} replicas are up to date")
    return Condition("Progressing", "False", "Stable", f"all {wanted} replicas are up to date")


def worst(actor: AsyncActor, observed: Observed) -> Trouble | None:
    """What is wrong with the pods, the most telling first; nothing where they are well or only young."""
    if actor.spec.state_proxy is not None and observed.missing_secrets:
        return _secret_missing(observed.missing_secrets[0])
    newest = max((str((pod.get("metadata") or {}).get("creationTimestamp") or "") for pod in observed.pods), default="")
    for event in reversed(observed.events):
        if newest and event.get("reason") == "FailedCreate" and when(event) <= newest:
            continue  # a pod has been created since; a later attempt that fails moves the event's time on
        found = _from_event(actor, event)
        if found is not None:
            return found
    for pod in observed.pods:
        found = _from_pod(actor, pod)
        if found is not None:
            return found
    return None


def _unschedulable(observed: Observed) -> Trouble | None:
    """The scheduler's words where no node takes one of the pods: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-conditions"""
    for pod in observed.pods:
        for row in (pod.get("status") or {}).get("conditions") or []:
            if (row.get("type"), row.get("status"), row.get("reason")) == ("PodScheduled", "False", "Unschedulable"):
                words = f"pod {_name(pod)} has no node: {row.get('message', '')}"
                step = "add or free nodes, or correct resources, and what podTemplate says of nodes and volumes"
                return Trouble("Unschedulable", f"{words}; {step}", False)
    return None


def _name(pod: Mapping[str, Any]) -> str:
    return str((pod.get("metadata") or {}).get("name", "?"))


def _without_proxy(actor: AsyncActor, observed: Observed) -> str | None:
    """A pod whose state proxy does not serve yet, where none does."""
    if actor.spec.state_proxy is None or any(_proxy_started(pod) for pod in observed.pods):
        return None
    return next((_name(pod) for pod in observed.pods), None)


def _proxy_log(pod: str) -> str:
    return f"kubectl logs {pod} -c {PROXY_CONTAINER}"


def when(event: Mapping[str, Any]) -> str:
    """The time of an event's last occurrence."""
    made = (event.get("metadata") or {}).get("creationTimestamp")
    return str(event.get("lastTimestamp") or event.get("eventTime") or made or "")


def _secret_missing(name: str) -> Trouble:
    return Trouble(
        "SecretMissing", f"Secret {name!r} does not exist; create it, or correct stateProxy.credentials", True
    )


def _from_event(actor: AsyncActor, event: Mapping[str, Any]) -> Trouble | None:
    text = str(event.get("message") or "")
    match = re.search(r'secret "([^"]+)" not found', text)
    if match and actor.spec.state_proxy is not None:
        return _secret_missing(match.group(1))
    if re.search(r'failed calling webhook "[^"]*asya\.sh"', text):
        return Trouble("WebhookUnreachable", f"{text}; the webhook must run before new pods can", True)
    # The webhook, or the admission policy behind it.
    if "denied" in text and "asya state:" in text:
        return Trouble("PodRefused", text, True)
    if event.get("reason") == "FailedCreate":
        return Trouble(*refusals.explain(text, "PodsNotCreated", "see the events of its ReplicaSet"), False)
    return None


def _statuses(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _from_pod(actor: AsyncActor, pod: Mapping[str, Any]) -> Trouble | None:
    name = _name(pod)
    if actor.spec.state_proxy is not None and not _injected(pod):
        message = f"pod {name} has no {PROXY_CONTAINER}: delete the pod once the webhook is there (see its Deployment)"
        return Trouble("NotInjected", message, True)
    for status in _statuses(pod):
        state = status.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        last = (status.get("lastState") or {}).get("terminated") or {}
        reason, text = waiting.get("reason", ""), str(waiting.get("message") or "")
        container = status.get("name")
        if _guard_refused(actor, f"{text} {ended.get('message', '')} {last.get('message', '')}"):
            message = (
                f"pod {name}: the image has a mount path as a directory; set guard: directory, or another mountPath"
            )
            return Trouble("GuardRefused", message, True)
        if reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName"):
            whose = "images of the chart" if container in (PROXY_CONTAINER, INSTALL_CONTAINER) else "image"
            step = f"correct {whose}, or give imagePullSecrets"
            words = f"pod {name}, container {container}: {text}; {step}"
            return Trouble("ImageNotPulled", words, container == PROXY_CONTAINER)
        if reason == "CreateContainerConfigError":
            step = "create what it names, or correct env and envFrom"
            return Trouble("ContainerConfig", f"pod {name}, container {container}: {text}; {step}", False)
        crashed = last or ended
        if crashed and (reason == "CrashLoopBackOff" or ended.get("exitCode", 0) != 0):
            return _crash(name, str(container), crashed)
    return None


def _crash(pod: str, container: str, ended: Mapping[str, Any]) -> Trouble:
    words = str(ended.get("message") or "").strip() or f"exit code {ended.get('exitCode')}"
    if container == PROXY_CONTAINER:
        reason = next((r for pattern, r in _LAST_WORDS if re.search(pattern, words, re.IGNORECASE)), "ProxyFailed")
        return Trouble(reason, f"{words}; {_NEXT[reason]}", True)
    if ended.get("reason") == "OOMKilled":
        return Trouble("OutOfMemory", f"pod {pod}: {container} used more than its memory limit; raise it", False)
    reason = "HandlerCrashing" if container == RUNTIME_CONTAINER else "ContainerCrashing"
    return Trouble(reason, f"pod {pod}: {container} ended: {words[-600:]}", False)


def _guard_refused(actor: AsyncActor, text: str) -> bool:
    """Runc's words where a file is to be mounted over a directory."""
    state = actor.spec.state_proxy
    if state is None or "not a directory" not in text:
        return False
    paths = [state.mount_path, *(mount.mount_path for mount in state.mounts)]
    return any(path in text for path in paths)


def _injected(pod: Mapping[str, Any]) -> bool:
    init = (pod.get("spec") or {}).get("initContainers") or []
    return any(c.get("name") == PROXY_CONTAINER and c.get("restartPolicy") == "Always" for c in init)


def _state(actor: AsyncActor, observed: Observed) -> list[Condition]:
    if actor.spec.state_proxy is None:
        return []
    trouble = None if observed.fault else worst(actor, observed)
    if trouble is not None and trouble.state:
        return [Condition("StateReady", "False", trouble.reason, trouble.message)]
    started = [_proxy_started(pod) for pod in observed.pods]
    if not started:
        return [Condition("StateReady", "Unknown", "NoPods", "there is no pod whose proxy could be asked")]
    if any(started):
        return [
            Condition("StateReady", "True", "Reachable", f"the proxies of {sum(started)} of {len(started)} pods serve")
        ]
    if (homeless := _unschedulable(observed)) is not None:
        return [Condition("StateReady", "False", homeless.reason, homeless.message)]
    log = _proxy_log(_name(observed.pods[0]))
    return [Condition("StateReady", "False", "Starting", f"no proxy serves yet; see {log}")]


def _proxy_started(pod: Mapping[str, Any]) -> bool:
    rows = (pod.get("status") or {}).get("initContainerStatuses") or []
    return any(row.get("name") == PROXY_CONTAINER and row.get("started") is True for row in rows)


def _notes(actor: AsyncActor, observed: Observed) -> list[Condition]:
    notes = []
    state = actor.spec.state_proxy
    if state is not None:
        guards = [(state.mount_path, state.guard), *((mount.mount_path, mount.guard) for mount in state.mounts)]
        weak = [path for path, kind in guards if kind == "directory"]
        if weak:
            message = (
                f"guard: directory at {', '.join(weak)}: a program without the shim sees an empty read-only directory; "
                "remove the directory from the image and use guard: file"
            )
            notes.append(Condition("GuardWeak", "True", "Directory", message))
    if observed.scaled_externally is not None:
        message = (
            f"{observed.scaled_externally} owns the replicas of the Deployment; point it at the AsyncActor instead "
            f"(kind: AsyncActor, name: {actor.name}), or leave it; another number in the AsyncActor takes them back"
        )
        notes.append(Condition("ScaledExternally", "True", "OwnedByAnother", message))
    return notes
