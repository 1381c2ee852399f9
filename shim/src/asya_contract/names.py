"""Names and places that more than one package must agree on."""

GROUP = "asya.sh"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "AsyncActor"
PLURAL = "asyncactors"

RUNTIME_CONTAINER = "asya-runtime"
INSTALL_CONTAINER = "asya-install"
PROXY_CONTAINER = "asya-state-proxy"

STATE_LABEL = f"{GROUP}/state-proxy"
ACTOR_LABEL = f"{GROUP}/actor"
STATE_CONFIG_ANNOTATION = f"{GROUP}/state-config"

SHIM_VOLUME = "asya-shim"
SHIM_DIR = "/opt/asya"
RUN_FILE = "/opt/asya/run.py"
SOCKET_VOLUME = "state-sockets"
SOCKET_DIR = "/var/run/asya/state"

DEFAULT_MOUNT = "state"
DEFAULT_MOUNT_PATH = "/state"
# Our own records live below the prefix under this name; no user path reaches it.
RESERVED_SEGMENT = ".asya"

BACKENDS = ("s3", "gcs", "redis", "nats")
LOCAL_BACKENDS = ("sqlite", "memory")
CONSISTENCIES = ("lww", "cas")


def state_prefix(namespace: str, actor: str, mount: str = DEFAULT_MOUNT, key_prefix: str = "") -> str:
    """Where an actor's state files lie in the bucket: `{keyPrefix}{namespace}/{actor}[@{mount}]/`."""
    suffix = "" if mount == DEFAULT_MOUNT else f"@{mount}"
    return f"{key_prefix}{namespace}/{actor}{suffix}/"


def default_secret(backend: str) -> str:
    """The Secret that holds a backend's credentials when the actor names none."""
    return f"asya-state-{backend}"
