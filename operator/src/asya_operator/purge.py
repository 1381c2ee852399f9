"""The Job that removes an actor's state (`deletionPolicy: Delete`), and what its outcome means; pure."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from asya_contract.names import GROUP, INSTALL_CONTAINER, RUNTIME_CONTAINER
from asya_operator.api import AsyncActor
from asya_operator.conditions import when
from asya_operator.desired import Manifest, dump_env, env_list, labels, metadata, pull_secrets, restricted
from asya_operator.inject import credentials_volumes
from asya_operator.settings import Settings
from asya_operator.state import StateConfig, credentials_dir, proxy_variables, resolve

FINALIZER = f"{GROUP}/purge-state"
ATTEMPTS = 3
ATTEMPT_SECONDS = 3600
LONGEST_NAME = 63

# What every pod waits for at first.
_YOUNG = ("ContainerCreating", "PodInitializing")

Outcome = Literal["running", "done", "failed"]


def job_name(actor: AsyncActor) -> str:
    """The actor's own: short enough for the label that Kubernetes makes of it, and no other actor's."""
    name = f"{actor.name}-purge"
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(actor.name.encode()).hexdigest()[:8]
    return f"{actor.name[:48].rstrip('-')}-{digest}-purge"


def own(found: Mapping[str, Any], actor: AsyncActor) -> bool:
    """Whether a Job of that name is this actor's."""
    owners = found["metadata"].get("ownerReferences") or []
    return any(owner.get("uid") == actor.metadata.uid for owner in owners)


def own_config(actor: AsyncActor, settings: Settings) -> StateConfig:
    """The actor's state without what it only sees of others, and writable: read-only is no protection from its end."""
    config = resolve(actor, settings, RUNTIME_CONTAINER)
    writable = [mount.model_copy(update={"read_only": False}) for mount in config.mounts if mount.actor is None]
    return config.model_copy(update={"mounts": writable})


def job(actor: AsyncActor, settings: Settings) -> Manifest:
    """A Job that runs `asya-state-proxy purge` with the environment the proxy had."""
    config = own_config(actor, settings)
    ours = {**labels(actor), "app.kubernetes.io/component": "purge"}
    container: Manifest = {
        "name": INSTALL_CONTAINER,
        "image": settings.proxy_image,
        "command": ["asya-state-proxy", "purge"],
        "env": env_list(proxy_variables(config, actor.namespace, settings.key_prefix)) + dump_env(config.env),
        "resources": {"requests": dict(config.requests), "limits": dict(config.limits)},
        "securityContext": restricted(settings.proxy_uid),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": volume["name"], "mountPath": credentials_dir(mount), "readOnly": True}
            for volume, mount in zip(credentials_volumes(config), config.mounts, strict=True)
        ],
    }
    if settings.proxy_image_pull_policy is not None:
        container["imagePullPolicy"] = settings.proxy_image_pull_policy
    pod: Manifest = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": credentials_volumes(config),
        **pull_secrets(actor),
        **_placement(actor),
    }
    if actor.spec.service_account_name is not None:
        pod["serviceAccountName"] = actor.spec.service_account_name
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata(actor), "name": job_name(actor), "labels": ours},
        "spec": {
            "backoffLimit": ATTEMPTS - 1,
            "activeDeadlineSeconds": ATTEMPTS * ATTEMPT_SECONDS,
            # Its pods are not the actor's: the Service and the Deployment select by the actor's label.
            "template": {
                "metadata": {"labels": {k: v for k, v in ours.items() if not k.startswith(GROUP)}},
                "spec": pod,
            },
        },
    }


def _placement(actor: AsyncActor) -> Manifest:
    """On which nodes the actor's pods may run."""
    pod = (actor.spec.pod_template or {}).get("spec") or {}
    return {name: pod[name] for name in ("nodeSelector", "tolerations") if pod.get(name)}


def waits_for(
    found: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]
) -> tuple[str, str] | None:
    """Why a Job does not get on, as reason and words: what its pods' containers wait for, else the last of the warning
    `events` that is about the Job or one of its `pods`."""
    for pod in pods:
        for status in (pod.get("status") or {}).get("containerStatuses") or []:
            waiting = (status.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") and waiting["reason"] not in _YOUNG:
                return str(waiting["reason"]), str(waiting.get("message") or "")
    ours = {(kind, one["metadata"]["uid"]) for kind, one in (("Job", found), *(("Pod", pod) for pod in pods))}
    about = [e for e in events if (e["involvedObject"].get("kind"), e["involvedObject"].get("uid")) in ours]
    if not about:
        return None
    last = max(about, key=when)
    return str(last.get("reason") or ""), str(last.get("message") or "")


def outcome(found: Mapping[str, Any]) -> tuple[Outcome, str]:
    """How far a Job is, and its own words."""
    for row in (found.get("status") or {}).get("conditions") or []:
        if row.get("status") == "True" and row.get("type") in ("Complete", "Failed"):
            done: Outcome = "done" if row["type"] == "Complete" else "failed"
            return done, str(row.get("message") or row.get("reason") or "")
    return "running", ""
