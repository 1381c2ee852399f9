"""What is kept of a failed test, in build/e2e-artifacts: objects, descriptions, events and logs."""

import subprocess
from pathlib import Path

from rig.cluster import ROOT, Cluster, Object
from rig.installation import SYSTEM

PLACE = ROOT / "build" / "e2e-artifacts"


def dump(cluster: Cluster, test: str, *namespaces: str) -> Path:
    """Write everything that may explain why `test` failed; the directory."""
    place = PLACE / "".join(c if c.isalnum() or c in "-_" else "_" for c in test)
    place.mkdir(parents=True, exist_ok=True)
    for where in (*namespaces, SYSTEM):
        _write(cluster, place / f"{where}-objects.yaml", "-n", where, "get", "all,cm,asyncactors", "-o", "yaml")
        _write(cluster, place / f"{where}-describe.txt", "-n", where, "describe", "asyncactors,deploy,rs,pods,jobs")
        _write(cluster, place / f"{where}-events.txt", "-n", where, "events")
        for pod in cluster.get(f"/api/v1/namespaces/{where}/pods").get("items") or []:
            name = pod["metadata"]["name"]
            for container in _started(pod):
                log = place / f"{where}-{name}-{container}.log"
                _write(cluster, log, "-n", where, "logs", name, "-c", container, "--tail=2000")
                _write(cluster, log.with_suffix(".previous.log"), "-n", where, "logs", name, "-c", container, "-p")
    kinds = "mutatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings"
    _write(cluster, place / "admission.yaml", "get", kinds, "-o", "yaml")
    return place


def _started(pod: Object) -> list[str]:
    """Containers that may have a log: hundreds of pods that never ran must not cost minutes."""
    status = pod.get("status") or {}
    rows = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return [row["name"] for row in rows if row["restartCount"] or "waiting" not in (row.get("state") or {})]


def _write(cluster: Cluster, path: Path, *args: str) -> None:
    try:
        path.write_text(cluster.kubectl(*args))
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        # A container that did not run before has no previous log; what else kubectl could not do is an artifact too.
        if not path.name.endswith(".previous.log"):
            path.write_text(f"{error}\n{getattr(error, 'stderr', '')}\n")
