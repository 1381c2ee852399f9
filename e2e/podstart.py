"""How long pods take to start, side by side: a plain pod, an actor without state, an actor with state.

    python e2e/podstart.py [ROUNDS]

Each round makes one pod of each kind, one after the other, and polls it; the medians, in seconds from the request
that creates the pod. `1 s readiness` are the same pods with a readiness probe each second instead of each fifth.
"""

import copy
import statistics
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from rig import backends  # noqa: E402
from rig.actors import Namespace, container_status, is_ready, new_namespace  # noqa: E402
from rig.cluster import Object, cluster  # noqa: E402
from rig.images import images  # noqa: E402
from rig.installation import Installation  # noqa: E402
from rig.waiting import until  # noqa: E402

POLL_SECONDS = 0.05
DEADLINE_SECONDS = 60.0
STEPS = ("proxy started", "handler's container running", "ready")


def template(namespace: Namespace, name: str, **spec: Any) -> Object:
    """A pod as the Deployment of an actor makes it."""
    namespace.actor(name, "handlers.files", replicas=0, **spec)
    found = until(lambda: namespace.get(f"apps/v1/deployments/{name}"), 30, f"the Deployment of {name}")
    body: Object = copy.deepcopy(found["spec"]["template"])
    body["metadata"]["labels"].pop("asya.sh/actor")
    return body


def plain(namespace: Namespace, like: Object) -> Object:
    """The same image with a server of Python's own, and nothing of ours."""
    (runtime,) = like["spec"]["containers"]
    container = {
        "name": "plain",
        "image": namespace.images["plain"],
        "command": ["python3", "-c", "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)"],
        "ports": runtime["ports"],
        "readinessProbe": {**runtime["readinessProbe"], "httpGet": {"path": "/", "port": 8080}},
    }
    return {"metadata": {}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}


def quick(body: Object) -> Object:
    out = copy.deepcopy(body)
    for container in out["spec"]["containers"]:
        container["readinessProbe"]["periodSeconds"] = 1
    return out


def start(namespace: Namespace, body: Object, name: str) -> dict[str, float]:
    """Seconds until each step of one pod's start."""
    pod = {"apiVersion": "v1", "kind": "Pod", **body, "metadata": {**body["metadata"], "name": name}}
    path = f"/api/v1/namespaces/{namespace.name}/pods"
    seen: dict[str, float] = {}
    began = time.perf_counter()
    namespace.cluster.request("POST", path, json=pod).raise_for_status()
    while "ready" not in seen:
        found = namespace.get(f"pods/{name}")
        now = time.perf_counter() - began
        main = found["spec"]["containers"][0]["name"]
        holds = (
            container_status(found, "asya-state-proxy").get("started") is True,
            "running" in (container_status(found, main).get("state") or {}),
            is_ready(found),
        )
        for step, reached in zip(STEPS, holds, strict=True):
            if reached:
                seen.setdefault(step, now)
        if now > DEADLINE_SECONDS:
            raise SystemExit(f"{name} is not ready after {now:.0f} s: {found['status']}")
        time.sleep(POLL_SECONDS)
    namespace.cluster.kubectl("-n", namespace.name, "delete", "pod", name, "--grace-period=1", "--wait=true")
    return seen


def main(rounds: int) -> None:
    with cluster() as kube:
        names = images(kube)
        backends.start(kube, names)
        installation = Installation(kube, names)
        installation.install()
        namespace = new_namespace(kube, names, {})
        without = template(namespace, "without")
        kinds = {
            "plain pod": plain(namespace, without),
            "actor without state": without,
            "actor with state": template(namespace, "with", state={}),
        }
        kinds |= {f"{kind}, 1 s readiness": quick(body) for kind, body in kinds.items()}
        times: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for number in range(rounds):
            for index, (kind, body) in enumerate(kinds.items()):
                times[kind].append(start(namespace, body, f"p{index}-{number}"))
        print(f"{'median of ' + str(rounds):>36}", *(f"{step:>28}" for step in STEPS))
        for kind, found in times.items():
            cells = [
                f"{statistics.median(row[step] for row in found):28.2f}" if step in found[0] else f"{'-':>28}"
                for step in STEPS
            ]
            print(f"{kind:>36}", *cells)
        if not kube.local:
            installation.remove()
            kube.kubectl("delete", "namespace", namespace.name, "--wait=false")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
