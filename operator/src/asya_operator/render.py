"""What the cluster would get for an actor or a pod, as YAML: for GitOps, for Jobs, for looking. Pure."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from asya_contract.names import RUN_FILE, RUNTIME_CONTAINER
from asya_operator.api import AsyncActor
from asya_operator.desired import Manifest, desired, labels, pod_template
from asya_operator.inject import inject
from asya_operator.settings import Settings

# Fields of a container that only make sense while it answers messages.
_SERVING = ("readinessProbe", "livenessProbe", "startupProbe", "ports")
_POD_SPEC_AT: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


def manifests(actor: AsyncActor, settings: Settings) -> list[Manifest]:
    """The operator's objects, with the replicas that it applies apart."""
    out = desired(actor, settings)
    out[0] = {**out[0], "spec": {"replicas": actor.spec.replicas, **out[0]["spec"]}}
    return out


def job(actor: AsyncActor, settings: Settings, arguments: Sequence[str]) -> Manifest:
    """A Job that runs a program of the actor's image with the actor's state; `arguments` are what follows run.py:
    a file or -m MODULE, and its own arguments."""
    template = copy.deepcopy(pod_template(actor, settings, settings.proxy_image))
    template["spec"]["restartPolicy"] = "Never"
    for container in template["spec"]["containers"]:
        if container["name"] == RUNTIME_CONTAINER:
            field = "command" if "command" in container else "args"
            container[field] = [actor.spec.python_executable, RUN_FILE, *arguments]
            for name in _SERVING:
                container.pop(name, None)
    # Its pods must not get the Service's messages, nor count as the Deployment's.
    own = {**labels(actor), "app.kubernetes.io/component": "job"}
    own.pop("asya.sh/actor")
    template["metadata"]["labels"] = {
        name: value for name, value in template["metadata"]["labels"].items() if name != "asya.sh/actor"
    } | own
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": f"{actor.name}-", "namespace": actor.namespace, "labels": own},
        "spec": {"backoffLimit": 0, "template": template},
    }


def injected(body: Mapping[str, Any], namespace: str, settings: Settings) -> Manifest:
    """A Pod, or anything with a pod template, with the webhook's part in it; other kinds come back unchanged.

    Raises:
        Refused: as the webhook would.
    """
    out = copy.deepcopy(dict(body))
    path = _POD_SPEC_AT.get(str(out.get("kind")))
    if path is None:
        return out
    place = (out.get("metadata") or {}).get("namespace") or namespace
    if not path:
        return inject(out, place, settings)
    parent: Any = out
    for name in path[:-1]:
        parent = parent.get(name) or {}
    parent[path[-1]] = inject(parent.get(path[-1]) or {}, place, settings)
    return out


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def to_yaml(documents: Sequence[Mapping[str, Any]]) -> str:
    """One or several documents, in the order in which fields were put."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
