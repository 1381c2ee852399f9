"""Strategic merge of a partial pod template into the operator's, by Kubernetes' own merge keys.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ (patch merge key of each list).
Pure, and ignorant of whose field is whose: refusals are `asya_operator.api.podtemplate`'s.
"""

from collections.abc import Mapping
from typing import Any

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "schedulingGates": "name",
}


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `patch` over it: mappings merge, keyed lists merge by key, everything else is replaced; an
    explicit null removes. Neither argument is changed."""
    out = dict(base)
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        elif isinstance(value, Mapping):
            below = out.get(name)
            out[name] = merge(below if isinstance(below, Mapping) else {}, value)
        elif isinstance(value, list) and name in MERGE_KEYS and isinstance(out.get(name), list):
            out[name] = _merge_lists(out[name], value, MERGE_KEYS[name])
        else:
            out[name] = value
    return out


def _merge_lists(base: list[Any], patch: list[Any], key: str) -> list[Any]:
    """Entries of `base` in their order, merged with those of the same key; the others after them."""
    out = list(base)
    places = {entry.get(key): index for index, entry in enumerate(base) if isinstance(entry, Mapping)}
    for entry in patch:
        index = places.get(entry.get(key)) if isinstance(entry, Mapping) else None
        if index is None:
            out.append(merge({}, entry) if isinstance(entry, Mapping) else entry)
        else:
            out[index] = merge(out[index], entry)
    return out
