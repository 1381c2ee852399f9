"""What stands at a mount path for programs that escape the hooks: a read-only file from the downward
API, whose text says where the state is and how to look at it.

Files below it fail with ENOTDIR, writes with EROFS: nothing ever reaches the container's disk.
"""

from typing import Any

from asya_contract.names import GROUP, PROXY_CONTAINER, RUN_FILE
from asya_operator.api import AsyncActor
from asya_operator.api.podtemplate import GUARD_VOLUME
from asya_operator.state import MountState

# The name of the only file in a guard directory.
README = "README.asya"


def annotation(mount: str) -> str:
    """The pod annotation that holds a guard's text; mount names are short enough for it."""
    return f"{GROUP}/guard-{mount}"


def text(actor: AsyncActor, mount: MountState) -> str:
    """What `cat /state` prints."""
    where = f"{mount.backend}, bucket {mount.bucket}"
    whose = f"actor {actor.namespace}/{mount.actor or actor.name}"
    look = f"kubectl -n {actor.namespace} exec deploy/{actor.name} -c {PROXY_CONTAINER} -- asya-state-proxy ls"
    python = actor.spec.python_executable
    return (
        f"{mount.path} is the state of {whose} ({where}), not a directory of this container.\n"
        "Only Python programs that run with the Asya shim see the files in it, and the one that read this has none.\n"
        f"Look at the files:            {look}\n"
        f"Run a program with the shim:  {python} {RUN_FILE} PROGRAM.py\n"
    )


def _item_path(mount: MountState, directory: bool) -> str:
    return f"{mount.name}/{README}" if directory else mount.name


def volume(mounts: list[tuple[MountState, bool]]) -> dict[str, Any]:
    """The volume with all guards of a pod; the flag says which are directories."""
    return {
        "name": GUARD_VOLUME,
        "downwardAPI": {
            "defaultMode": 0o444,
            "items": [
                {
                    "path": _item_path(mount, directory),
                    "fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{annotation(mount.name)}']"},
                }
                for mount, directory in mounts
            ],
        },
    }


def volume_mount(mount: MountState) -> dict[str, Any]:
    """The guard at its place in a container; of a file and of a directory alike."""
    return {"name": GUARD_VOLUME, "mountPath": mount.path, "subPath": mount.name, "readOnly": True}
