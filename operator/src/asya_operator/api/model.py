"""The AsyncActor resource as pydantic sees it: names, types, enums, defaults and bounds.

The twin of `crds/asyncactors.yaml`, which carries the descriptions; a test walks both together.
Strict: no value is converted, no unknown field is passed over. Rules between fields are in `rules`;
`load.parse_actor` runs both and is the way in.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from asya_operator.api import patterns

Backend = Literal["s3", "gcs", "redis", "nats"]
Consistency = Literal["lww", "cas"]


def _text(pattern: str, longest: int) -> Any:
    return StringConstraints(pattern=pattern, min_length=1, max_length=longest)


Image = Annotated[str, _text(patterns.IMAGE, 512)]
Handler = Annotated[str, _text(patterns.HANDLER, 255)]
Executable = Annotated[str, _text(patterns.EXECUTABLE, 255)]
ActorName = Annotated[str, _text(patterns.SERVICE_NAME, 63)]
ContainerName = Annotated[str, _text(patterns.DNS_LABEL, 63)]
ObjectName = Annotated[str, _text(patterns.DNS_SUBDOMAIN, 253)]
MountName = Annotated[str, _text(patterns.MOUNT_NAME, 32)]
MountPath = Annotated[str, _text(patterns.MOUNT_PATH, 255)]
EnvName = Annotated[str, _text(patterns.ENV_NAME, 255)]
DataKey = Annotated[str, _text(patterns.DATA_KEY, 253)]
Duration = Annotated[str, _text(patterns.DURATION, 16)]
Size = Annotated[str, _text(patterns.SIZE, 24)]
QuantityText = Annotated[str, StringConstraints(pattern=patterns.QUANTITY, max_length=32)]
Quantity = Annotated[int, Field(ge=0)] | QuantityText
Bucket = Annotated[str, _text(patterns.BUCKET, 222)]
Endpoint = Annotated[str, _text(patterns.ENDPOINT, 1024)]
Region = Annotated[str, _text(patterns.REGION, 64)]


class Base(BaseModel):
    """Strict, closed and frozen; JSON names are camelCase."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_null(cls, data: Any) -> Any:
        """An empty value (`stateProxy:` and nothing below it) is a slip, never a choice."""
        if isinstance(data, dict):
            for name, value in data.items():
                if value is None:
                    raise PydanticCustomError("empty_field", "empty", {"field": str(name)})
        return data


class FieldRef(Base):
    api_version: Annotated[str, Field(max_length=16)] | None = None
    field_path: Annotated[str, Field(min_length=1, max_length=512)]


class ResourceFieldRef(Base):
    container_name: ContainerName | None = None
    resource: Annotated[str, Field(min_length=1, max_length=128)]
    divisor: Quantity | None = None


class KeyRef(Base):
    name: ObjectName
    key: DataKey
    optional: bool | None = None


class EnvSource(Base):
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None


class EnvVar(Base):
    name: EnvName
    value: Annotated[str, Field(max_length=131072)] | None = None
    value_from: EnvSource | None = None


class ProxyEnvVar(EnvVar):
    value: Annotated[str, Field(max_length=16384)] | None = None


class ObjectRef(Base):
    name: ObjectName
    optional: bool | None = None


class EnvFrom(Base):
    prefix: Annotated[str, Field(max_length=253)] | None = None
    config_map_ref: ObjectRef | None = None
    secret_ref: ObjectRef | None = None


class PullSecret(Base):
    name: ObjectName


class Resources(Base):
    requests: Annotated[dict[str, Quantity], Field(max_length=16)] | None = None
    limits: Annotated[dict[str, Quantity], Field(max_length=16)] | None = None


class Service(Base):
    enabled: bool = True


class Credentials(Base):
    secret_name: ObjectName


class Mounted(Base):
    """What the state of one mount is and where it lies; `stateProxy` and `mounts[]` share it."""

    backend: Backend
    bucket: Bucket | None = None
    consistency: Consistency = "lww"
    read_only: bool | None = None
    from_actor: ActorName | None = None
    endpoint: Endpoint | None = None
    region: Region | None = None
    credentials: Credentials | None = None
    guard: Literal["file", "directory"] = "file"

    @property
    def is_read_only(self) -> bool:
        """As stated; another actor's state is read-only unless stated."""
        return self.from_actor is not None if self.read_only is None else self.read_only


class FurtherMount(Mounted):
    name: MountName
    mount_path: MountPath


class StateProxy(Mounted):
    mount_path: MountPath = "/state"
    env: Annotated[list[ProxyEnvVar], Field(max_length=64)] = Field(default_factory=list)
    resources: Resources | None = None
    max_file_size: Size = "64Mi"
    request_timeout: Duration = "30s"
    http_port: Annotated[int, Field(ge=1024, le=65535)] | None = None
    containers: Annotated[list[ContainerName], Field(max_length=16)] = Field(default_factory=list)
    mounts: Annotated[list[FurtherMount], Field(max_length=8)] = Field(default_factory=list)


class Spec(Base):
    image: Image
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: Annotated[list[PullSecret], Field(max_length=16)] = Field(default_factory=list)
    handler: Handler
    python_executable: Executable = "python3"
    entrypoint: Literal["override", "image"] = "override"
    replicas: Annotated[int, Field(ge=0, le=10000)] = 1
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 1
    turn_timeout: Duration = "5m"
    conflict_retries: Annotated[int, Field(ge=0, le=100)] = 0
    env: Annotated[list[EnvVar], Field(max_length=2048)] = Field(default_factory=list)
    env_from: Annotated[list[EnvFrom], Field(max_length=64)] = Field(default_factory=list)
    resources: Resources | None = None
    service_account_name: ObjectName | None = None
    pod_template: dict[str, Any] | None = None
    service: Service = Field(default_factory=Service)
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    state_proxy: StateProxy | None = None


class Metadata(BaseModel):
    """The part of ObjectMeta that is read here; the API server answers for the rest."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, alias_generator=to_camel)

    name: ActorName
    namespace: ContainerName | None = None
    uid: str | None = None
    generation: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class AsyncActor(Base):
    """One AsyncActor. `status` is the operator's own and not looked at."""

    api_version: Literal["asya.sh/v1alpha1"]
    kind: Literal["AsyncActor"]
    metadata: Metadata
    spec: Spec
    status: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The namespace it lies in; `default` where none is given, as for kubectl."""
        return self.metadata.namespace or "default"
