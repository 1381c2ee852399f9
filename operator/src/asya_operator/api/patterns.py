"""The syntax of names and values in an AsyncActor: one pattern each, with the words an error says.

The same strings stand in `crds/asyncactors.yaml` (RE2 there, Rust's regex here: both without
look-around). Nothing but syntax belongs here; what depends on two fields is in `rules`.
"""

IMAGE = r"^\S+$"
HANDLER = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$"
EXECUTABLE = r"^[^\s-]\S*$"
# RFC 1035 label: what the name of a Service must be.
SERVICE_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
# RFC 1123 label and subdomain: other object names.
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
MOUNT_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
MOUNT_PATH = r"^(/[^/:;\x00-\x1f\x7f]+)+$"
ENV_NAME = r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"
DATA_KEY = r"^[-._a-zA-Z0-9]+$"
DURATION = r"^[0-9]{1,8}(\.[0-9]{1,3})?(ms|s|m|h)$"
SIZE = r"^[0-9]{1,15}(\.[0-9]{1,3})?(k|M|G|Ki|Mi|Gi)?$"
QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
BUCKET = r"^[a-zA-Z0-9][-._a-zA-Z0-9]*$"
ENDPOINT = r"^[a-z][a-z0-9+]*://[^\s@]+$"
REGION = r"^[a-z0-9][-a-z0-9]*$"

# What one backend asks of a bucket's name and of an endpoint's scheme.
BUCKET_OF = {
    "s3": r"^[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]$",
    "gcs": r"^[a-z0-9][-._a-z0-9]{1,220}[a-z0-9]$",
    "redis": r"^[a-zA-Z0-9][-._a-zA-Z0-9]*$",
    "nats": r"^[a-zA-Z0-9][-_a-zA-Z0-9]*$",
}
BUCKET_WORDS = {
    "s3": "3 to 63 of a-z, 0-9, - and ., ends being letters or digits",
    "gcs": "3 to 222 of a-z, 0-9, -, _ and ., ends being letters or digits",
    "redis": "letters, digits, -, _ and .",
    "nats": "letters, digits, - and _",
}
SCHEMES_OF = {
    "s3": ("http", "https"),
    "gcs": ("http", "https"),
    "redis": ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
    "nats": ("nats", "tls", "ws", "wss"),
}

WORDS = {
    IMAGE: "an image reference without blanks",
    HANDLER: "module.function or module.Class.method",
    EXECUTABLE: "a program name or path without blanks",
    SERVICE_NAME: "a name that starts with a-z and goes on with a-z, 0-9 and -, the last one not -",
    DNS_LABEL: "a name of a-z, 0-9 and -, neither first nor last being -",
    DNS_SUBDOMAIN: "an object name: a-z, 0-9, - and ., each part beginning and ending with a letter or digit",
    MOUNT_PATH: "an absolute path without // or a trailing /, without : and ; and control characters, not /",
    ENV_NAME: "a variable name of letters, digits, _, - and ., not starting with a digit",
    DATA_KEY: "a key of letters, digits, -, _ and .",
    DURATION: "a duration with its unit, such as 30s, 5m or 250ms",
    SIZE: "a size such as 64Mi, 1G or 1048576",
    QUANTITY: "a quantity such as 100m, 0.5, 64Mi or 2",
    BUCKET: "a bucket name of letters, digits, -, _ and .",
    ENDPOINT: "a URL such as https://s3.example.com or redis://redis:6379, without user and password "
    "(those belong in the Secret)",
    REGION: "a region such as eu-central-1",
}
