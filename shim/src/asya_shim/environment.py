"""The shim's environment, read without what reading it in full costs.

`asya_contract.env` holds the table and every rule, and imports a dozen modules for that. The one mount
with default limits that nearly every pod has is recognised here; anything else, and anything wrong,
is the table's business. A test compares the two.
"""

from typing import List, Mapping, NamedTuple, Tuple

from asya_contract.names import SOCKET_DIR


class Mount(NamedTuple):
    """See `asya_contract.env.Mount`."""

    name: str
    path: str


class Environment(NamedTuple):
    """See `asya_contract.env.ShimEnv`."""

    socket_dir: str = SOCKET_DIR
    request_timeout: float = 30.0
    max_file_size: int = 64 * 2**20
    actor: str = ""


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
