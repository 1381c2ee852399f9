"""The shim's environment, read without what reading it in full costs.

`asya_contract.env` holds the table and every rule, and imports a dozen modules for that. The one mount
with default limits that nearly every pod has is recognised here; anything else, and anything wrong,
is the table's business. A test compares the two.
"""

from __future__ import annotations

from asya_contract.names import SOCKET_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Mapping, Tuple


class Mount:
    """See `asya_contract.env.Mount`."""

    __slots__ = ("name", "path")

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path


class Environment:
    """See `asya_contract.env.ShimEnv`."""

    __slots__ = ("actor", "max_file_size", "request_timeout", "socket_dir")

    def __init__(
        self,
        socket_dir: str = SOCKET_DIR,
        request_timeout: float = 30.0,
        max_file_size: int = 64 * 2**20,
        actor: str = "",
    ) -> None:
        self.socket_dir = socket_dir
        self.request_timeout = request_timeout
        self.max_file_size = max_file_size
        self.actor = actor


_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_FULL = ("ASYA_STATE_REQUEST_TIMEOUT", "ASYA_STATE_MAX_FILE_SIZE")
_OPTIONS = ("", ":", ":write=buffered")


def read_environment(environ: Mapping[str, str]) -> Tuple[Environment, List[Mount]]:
    """What `environ` says, and the mounts.

    Raises:
        asya_contract.env.EnvError: a value is bad.
    """
    text = environ.get("ASYA_STATE_PROXY_MOUNTS", "")
    name, _, rest = text.partition(":")
    path, colon, options = rest.partition(":")
    if (
        not any(environ.get(variable) for variable in _FULL)
        and ";" not in text
        and colon + options in _OPTIONS
        and name
        and len(name) <= 32
        and _NAME.issuperset(name)
        and path[:1] == "/"
        and not {"", ".", ".."}.intersection(path.split("/")[1:])
    ):
        socket_dir = environ.get("ASYA_STATE_SOCKET_DIR") or SOCKET_DIR
        return Environment(socket_dir, actor=environ.get("ASYA_ACTOR", "")), [Mount(name, path)]
    from asya_contract.env import ShimEnv, parse_mounts

    full = ShimEnv.from_env(environ)
    mounts = [Mount(mount.name, mount.path) for mount in parse_mounts(full.mounts)]
    return Environment(full.socket_dir, full.request_timeout, full.max_file_size, full.actor), mounts
