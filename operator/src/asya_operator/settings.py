"""What an installation decides for all its actors; operator and webhook read the same JSON file.

Parsing only: whoever starts a process reads the file (`ASYA_OPERATOR_CONFIG`).
"""

import json
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from asya_operator.api.model import (
    Base,
    ContainerName,
    Endpoint,
    Image,
    ObjectName,
    ProxyEnvVar,
    Region,
    Resources,
)
from asya_operator.api.problems import ManifestError, Problem, from_pydantic, show
from asya_operator.api.rules import refused_proxy_env

# Native sidecars of meshes, and what sets up the network for them: they stay before the proxy.
MESH_CONTAINERS = (
    "istio-validation",
    "istio-init",
    "istio-proxy",
    "linkerd-network-validator",
    "linkerd-init",
    "linkerd-proxy",
)
# The proxy image's own user; another fixed one than the operator's.
PROXY_UID = 64101


class BackendDefaults(Base):
    """What an actor that chooses this backend gets for what it does not say itself."""

    endpoint: Endpoint | None = None
    region: Region | None = None
    secret_name: ObjectName | None = None
    env: Annotated[list[ProxyEnvVar], Field(max_length=64)] = Field(default_factory=list)
    resources: Resources | None = None


class Backends(Base):
    s3: BackendDefaults = Field(default_factory=BackendDefaults)
    gcs: BackendDefaults = Field(default_factory=BackendDefaults)
    redis: BackendDefaults = Field(default_factory=BackendDefaults)
    nats: BackendDefaults = Field(default_factory=BackendDefaults)


class CertificateSettings(Base):
    """Where the operator keeps the webhook's certificate; without this, somebody else provides it."""

    namespace: ContainerName
    secret_name: ObjectName
    service_name: ContainerName
    webhook_configuration: ObjectName
    # For webhooks that are reached by URL instead of through the Service.
    extra_names: Annotated[list[ObjectName], Field(max_length=16)] = Field(default_factory=list)


class WebhookSettings(Base):
    """The webhook's Deployment. Without this a new proxy image waits for no webhook."""

    namespace: ContainerName
    name: ContainerName


class Settings(Base):
    """`proxyImage` is what new pods get; `allowedImages` are others that a template may still name."""

    proxy_image: Image
    allowed_images: Annotated[list[Image], Field(max_length=64)] = Field(default_factory=list)
    proxy_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    key_prefix: Annotated[str, Field(max_length=200, pattern=r"^([A-Za-z0-9._-]+/)*$")] = ""
    # 0 where the platform assigns one to each namespace, as OpenShift does.
    proxy_uid: Annotated[int, Field(ge=0)] = PROXY_UID
    mesh_containers: Annotated[list[ContainerName], Field(max_length=64)] = Field(
        default_factory=lambda: list(MESH_CONTAINERS)
    )
    backends: Backends = Field(default_factory=Backends)
    namespaces: Annotated[list[ContainerName], Field(max_length=1000)] = Field(default_factory=list)
    max_actors_rolling: Annotated[int, Field(ge=1, le=1000)] = 10
    certificates: CertificateSettings | None = None
    webhook: WebhookSettings | None = None
    health_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def defaults(self, backend: str) -> BackendDefaults:
        """The defaults of one backend."""
        found: BackendDefaults = getattr(self.backends, backend)
        return found


def parse_settings(text: str, source: str = "") -> Settings:
    """Settings from JSON.

    Raises:
        ManifestError: text that is no JSON, an unknown field, a bad value; with all problems.
    """
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ManifestError(source, [Problem((), f"is not JSON: {error}")]) from None
    if not isinstance(body, dict):
        raise ManifestError(source, [Problem((), f"expected an object, got {show(body)}")])
    try:
        settings = Settings.model_validate(body)
    except ValidationError as error:
        raise ManifestError(source, from_pydantic(Settings, error, body)) from None
    problems = [
        Problem(("backends", backend, "env", index, "name"), refused)
        for backend in ("s3", "gcs", "redis", "nats")
        for index, variable in enumerate(settings.defaults(backend).env)
        if (refused := refused_proxy_env(variable.name))
    ]
    if problems:
        raise ManifestError(source, problems)
    return settings
