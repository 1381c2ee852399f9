"""Cloud identities that other webhooks put into every container: what of it the proxy needs as well.

IRSA, EKS Pod Identity, Azure and GKE workload identity each add variables and a token mount, some
before our webhook and some after. Static credentials are never copied: they are the handler's own.
"""

from collections.abc import Iterable, Mapping
from typing import Any

# A variable that makes an identity -> all variables that go with it.
_IDENTITIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "AWS_ROLE_ARN",
        (
            "AWS_ROLE_ARN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_ROLE_SESSION_NAME",
            "AWS_STS_REGIONAL_ENDPOINTS",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
        ),
    ),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            "AWS_STS_REGIONAL_ENDPOINTS",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
        ),
    ),
    (
        "AZURE_FEDERATED_TOKEN_FILE",
        ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"),
    ),
)
_TOKEN_DIRS = (
    "/var/run/secrets/eks.amazonaws.com",
    "/var/run/secrets/pods.eks.amazonaws.com",
    "/var/run/secrets/azure",
    "/var/run/secrets/sts.googleapis.com",
    "/var/run/secrets/tokens",
)
_GOOGLE = "GOOGLE_APPLICATION_CREDENTIALS"

Entry = dict[str, Any]


def _below_token_dir(path: str) -> bool:
    return any((path.rstrip("/") + "/").startswith(place + "/") for place in _TOKEN_DIRS)


def token_mounts(containers: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Mounts of identity tokens, the first of each path."""
    found: dict[str, Entry] = {}
    for container in containers:
        for mount in container.get("volumeMounts") or []:
            path = str(mount.get("mountPath", ""))
            if _below_token_dir(path):
                found.setdefault(path, {**mount, "readOnly": True})
    return list(found.values())


def identity_env(containers: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Variables of identities, the first of each name; a region alone is no identity."""
    found: dict[str, Entry] = {}
    for container in containers:
        env = {entry.get("name"): entry for entry in container.get("env") or []}
        for maker, names in _IDENTITIES:
            if maker in env:
                for name in names:
                    if name in env:
                        found.setdefault(name, dict(env[name]))
        # A file of a workload identity federation names a token; a key file is a static credential.
        if _GOOGLE in env and _below_token_dir(str(env[_GOOGLE].get("value", ""))):
            found.setdefault(_GOOGLE, dict(env[_GOOGLE]))
    return list(found.values())
