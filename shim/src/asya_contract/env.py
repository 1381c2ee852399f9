"""The environment of proxy and runtime: one table of fields, one reader, one writer.

Operator, webhook and `asya run` write it (`to_env`), the proxy and the runtime read it
(`from_env`), the docs are generated from it. A field is a dataclass field with `var(...)` metadata;
nothing else about a variable is written down anywhere.

Adding a variable: one line in `ProxyEnv` or `RuntimeEnv`. A frozen value in, a frozen value out.
"""

import dataclasses
import difflib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type, TypeVar

from asya_contract.names import (
    BACKENDS,
    CONSISTENCIES,
    DEFAULT_MOUNT,
    DEFAULT_MOUNT_PATH,
    LOCAL_BACKENDS,
    SOCKET_DIR,
)

_T = TypeVar("_T")


class EnvError(ValueError):
    """A variable that is missing, unknown or has a bad value. The message names it, its value,
    what is allowed and what to do."""


@dataclass(frozen=True)
class Var:
    """What is known of one environment variable. `kind` is one of str, bool, int, seconds, size, enum, json."""

    name: str
    kind: str
    meaning: str
    choices: Tuple[str, ...] = ()
    minimum: Optional[float] = None
    settable: bool = False  # may stand in `stateProxy.env`
    secret: bool = False


def var(
    name: str,
    kind: str,
    meaning: str,
    default: Any = dataclasses.MISSING,
    choices: Tuple[str, ...] = (),
    minimum: Optional[float] = None,
    settable: bool = False,
) -> Any:
    """A dataclass field backed by environment variable `name`."""
    spec = Var(name, kind, meaning, choices, minimum, settable)
    if default is dataclasses.MISSING:
        return field(metadata={"var": spec})
    return field(default=default, metadata={"var": spec})


# Duration and size suffixes, as Kubernetes users write them.
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_QUANTITY = re.compile(r"^([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)\Z")
# Kubernetes puts these beside ours for a Service that happens to be called "state-...".
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_[0-9]+_.*)\Z")


def parse_seconds(text: str) -> float:
    """`30`, `30s`, `5m`, `250ms`, `1h` in seconds; ValueError otherwise."""
    match = _QUANTITY.match(text)
    if match is None or match.group(2) not in _SECONDS:
        raise ValueError(text)
    return float(match.group(1)) * _SECONDS[match.group(2)]


def parse_size(text: str) -> int:
    """`1048576`, `64Mi`, `1G` in bytes; ValueError otherwise."""
    match = _QUANTITY.match(text)
    if match is None or match.group(2) not in _BYTES:
        raise ValueError(text)
    return int(float(match.group(1)) * _BYTES[match.group(2)])


_ALLOWED = {
    "bool": "one of true, false, 1, 0",
    "int": "a whole number",
    "seconds": "a duration such as 30s, 5m or 250ms",
    "size": "a size such as 1048576, 64Mi or 1G",
    "json": "JSON",
}


def _parse(spec: Var, text: str) -> Any:
    def bad(allowed: str) -> EnvError:
        return EnvError(f"{spec.name}={text!r}: expected {allowed} ({spec.meaning})")

    if spec.kind == "enum":
        if text not in spec.choices:
            raise bad("one of " + ", ".join(spec.choices))
        return text
    if spec.kind == "bool":
        if text.lower() not in ("true", "false", "1", "0"):
            raise bad(_ALLOWED["bool"])
        return text.lower() in ("true", "1")
    if spec.kind == "str":
        return text
    try:
        parsers: Dict[str, Any] = {
            "int": int,
            "seconds": parse_seconds,
            "size": parse_size,
            "json": json.loads,
        }
        value = parsers[spec.kind](text)
    except ValueError:
        raise bad(_ALLOWED[spec.kind]) from None
    if spec.minimum is not None and value < spec.minimum:
        raise bad(f"{_ALLOWED[spec.kind]}, at least {spec.minimum:g}")
    return value


def _format(spec: Var, value: Any) -> str:
    if spec.kind == "bool":
        return "true" if value else "false"
    if spec.kind == "seconds":
        # Never an exponent, which `parse_seconds` would refuse.
        return f"{value:.6f}".rstrip("0").rstrip(".") + "s"
    if spec.kind == "json":
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def variables(cls: Any) -> Dict[str, Var]:
    """The variables of an environment class by field name, in order."""
    return {f.name: f.metadata["var"] for f in dataclasses.fields(cls) if "var" in f.metadata}


def read_env(cls: Type[_T], environ: Mapping[str, str], strict_prefix: str = "") -> _T:
    """Build `cls` from `environ`.

    Raises:
        EnvError: a required variable is missing or empty, a value is bad, or (with `strict_prefix`)
            a variable of that prefix is unknown.
    """
    specs = variables(cls)
    known = {spec.name for spec in specs.values()}
    if strict_prefix:
        for name in sorted(environ):
            if name.startswith(strict_prefix) and name not in known and not _SERVICE_LINK.search(name):
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(sorted(known))
                raise EnvError(f"{name} is not a variable of ours: {hint}")
    values: Dict[str, Any] = {}
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        spec = specs.get(f.name)
        if spec is None:
            continue
        text = environ.get(spec.name, "")
        if text != "":
            values[f.name] = _parse(spec, text)
        elif f.default is dataclasses.MISSING:
            raise EnvError(f"{spec.name} is not set: {spec.meaning}")
    return cls(**values)


def write_env(value: Any, every: bool = False) -> Dict[str, str]:
    """The variables that differ from their defaults (and all required ones), ready for a pod or a process; with
    `every`, all: what an image or an `envFrom` sets must not shine through."""
    out: Dict[str, str] = {}
    for f in dataclasses.fields(value):
        spec = f.metadata.get("var")
        current = getattr(value, f.name)
        if spec is None or (not every and f.default is not dataclasses.MISSING and current == f.default):
            continue
        out[spec.name] = _format(spec, current)
    return out


@dataclass(frozen=True)
class ProxyEnv:
    """What `asya-state-proxy serve` reads. Backends read their SDKs' own variables besides."""

    backend: str = var("STATE_BACKEND", "enum", "where the state lies", choices=BACKENDS + LOCAL_BACKENDS)
    bucket: str = var(
        "STATE_BUCKET", "str", "S3 or GCS bucket, NATS KV bucket, Redis key namespace, SQLite database name"
    )
    prefix: str = var("STATE_PREFIX", "str", "key prefix of the mount, ends with a slash", "")
    consistency: str = var(
        "STATE_CONSISTENCY", "enum", "what happens when two writers meet", "lww", choices=CONSISTENCIES
    )
    socket: str = var("STATE_SOCKET", "str", "Unix socket of the mount", f"{SOCKET_DIR}/{DEFAULT_MOUNT}.sock")
    mounts: Tuple[Any, ...] = var(
        "STATE_MOUNTS", "json", "list of further mounts: objects with the STATE_* names of what differs", ()
    )
    http_addr: str = var("STATE_HTTP_ADDR", "str", "address of health and metrics, host:port, or off", ":9464")
    read_only: bool = var("STATE_READ_ONLY", "bool", "refuse every change", False)
    actor: str = var("STATE_ACTOR", "str", "namespace/name of the actor, for messages", "")
    weak_delete: bool = var(
        "STATE_WEAK_DELETE",
        "bool",
        "in CAS, delete after comparing where the backend cannot do both at once",
        False,
        settable=True,
    )
    attempt_timeout: float = var(
        "STATE_ATTEMPT_TIMEOUT",
        "seconds",
        "one attempt at the store, from the last byte of progress",
        5.0,
        minimum=0.01,
        settable=True,
    )
    request_timeout: float = var(
        "STATE_REQUEST_TIMEOUT", "seconds", "all attempts of one request", 25.0, minimum=0.01, settable=True
    )
    commit_timeout: float = var(
        "STATE_COMMIT_TIMEOUT",
        "seconds",
        "the commit after the last byte of an upload",
        30.0,
        minimum=0.01,
        settable=True,
    )
    drain_timeout: float = var(
        "STATE_DRAIN_TIMEOUT", "seconds", "open requests after SIGTERM", 25.0, minimum=0, settable=True
    )
    max_object_size: int = var(
        "STATE_MAX_OBJECT_SIZE",
        "size",
        "largest file; 0 is the backend's own limit",
        0,
        minimum=0,
        settable=True,
    )
    max_in_flight: int = var(
        "STATE_MAX_IN_FLIGHT",
        "int",
        "requests at once; more are answered busy",
        256,
        minimum=1,
        settable=True,
    )
    max_buffered: int = var(
        "STATE_MAX_BUFFERED",
        "size",
        "bytes of request bodies in memory at once",
        64 * 2**20,
        minimum=2**20,
        settable=True,
    )
    self_test: bool = var("STATE_SELF_TEST", "bool", "test the backend's promises at start", True, settable=True)
    log_level: str = var(
        "STATE_LOG_LEVEL",
        "enum",
        "least severe log lines",
        "info",
        choices=("debug", "info", "warning", "error"),
        settable=True,
    )
    credentials_dir: str = var(
        "STATE_CREDENTIALS_DIR", "str", "directory of files named like the backend's variables, re-read on change", ""
    )
    sqlite_dir: str = var("SQLITE_DIR", "str", "directory of the SQLite databases (backend sqlite)", "")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "ProxyEnv":
        """Read and check; unknown `STATE_*` names are errors. Raises EnvError."""
        return read_env(cls, environ, strict_prefix="STATE_")

    def to_env(self) -> Dict[str, str]:
        """The inverse of `from_env`."""
        return write_env(self)


@dataclass(frozen=True)
class RuntimeEnv:
    """What `python run.py` reads in the handler's container."""

    handler: str = var("ASYA_HANDLER", "str", "the handler, module.function or module.Class.method")
    http_port: int = var("ASYA_HTTP_PORT", "int", "TCP port of the runtime", 8080, minimum=0)
    http_host: str = var("ASYA_HTTP_HOST", "str", "address the runtime listens on", "0.0.0.0")
    socket: str = var("ASYA_RUNTIME_SOCKET", "str", "Unix socket to listen on besides", "")
    concurrency: int = var("ASYA_CONCURRENCY", "int", "turns at a time", 1, minimum=1)
    turn_timeout: float = var("ASYA_TURN_TIMEOUT", "seconds", "longest turn", 300.0, minimum=0.01)
    conflict_retries: int = var("ASYA_CONFLICT_RETRIES", "int", "turns run anew after a conflict", 0, minimum=0)
    drain_timeout: float = var("ASYA_DRAIN_TIMEOUT", "seconds", "open turns after SIGTERM", 300.0, minimum=0)
    state_wait: float = var(
        "ASYA_STATE_WAIT", "seconds", "wait for the sockets of the mounts at start", 60.0, minimum=0
    )
    max_request_size: int = var("ASYA_MAX_REQUEST_SIZE", "size", "largest request body", 32 * 2**20, minimum=1024)
    actor: str = var("ASYA_ACTOR", "str", "namespace/name of the actor, for messages", "")
    log_level: str = var(
        "ASYA_LOG_LEVEL",
        "enum",
        "least severe log lines",
        "info",
        choices=("debug", "info", "warning", "error"),
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "RuntimeEnv":
        """Read and check. Raises EnvError."""
        return read_env(cls, environ)

    def to_env(self) -> Dict[str, str]:
        """The inverse of `from_env`."""
        return write_env(self)


@dataclass(frozen=True)
class ShimEnv:
    """What activates the shim, in any Python process."""

    mounts: str = var("ASYA_STATE_PROXY_MOUNTS", "str", "name:path:write=buffered, one or more joined by ;", "")
    socket_dir: str = var("ASYA_STATE_SOCKET_DIR", "str", "where {mount}.sock are", SOCKET_DIR)
    request_timeout: float = var(
        "ASYA_STATE_REQUEST_TIMEOUT",
        "seconds",
        "one call, from the last byte of progress",
        30.0,
        minimum=0.01,
    )
    max_file_size: int = var(
        "ASYA_STATE_MAX_FILE_SIZE", "size", "largest local copy of one file", 64 * 2**20, minimum=2**20
    )
    actor: str = var("ASYA_ACTOR", "str", "namespace/name of the actor, for messages", "")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "ShimEnv":
        """Read and check. Raises EnvError."""
        return read_env(cls, environ)

    def to_env(self) -> Dict[str, str]:
        """The inverse of `from_env`."""
        return write_env(self)


@dataclass(frozen=True)
class Mount:
    """One mount as the handler's side sees it: `name:path[:option,...]`."""

    name: str = DEFAULT_MOUNT
    path: str = DEFAULT_MOUNT_PATH
    options: Tuple[Tuple[str, str], ...] = (("write", "buffered"),)

    def __str__(self) -> str:
        return f"{self.name}:{self.path}:" + ",".join(f"{k}={v}" for k, v in self.options)


_MOUNT_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\Z")


def parse_mounts(text: str) -> List[Mount]:
    """Parse ASYA_STATE_PROXY_MOUNTS.

    Raises:
        EnvError: a part is not `name:path[:options]`, a name is doubled or malformed, or a path is
            not absolute and normalised.
    """
    mounts: List[Mount] = []
    for part in filter(None, text.split(";")):
        pieces = part.split(":", 2)
        if len(pieces) < 2 or not _MOUNT_NAME.match(pieces[0]):
            raise EnvError(
                f"ASYA_STATE_PROXY_MOUNTS: {part!r}: expected name:/path[:key=value,...], name of a-z, 0-9 and -"
            )
        name, path = pieces[:2]
        segments = path.split("/")
        if not path.startswith("/") or len(segments) < 2 or any(s in ("", ".", "..") for s in segments[1:]):
            raise EnvError(f"ASYA_STATE_PROXY_MOUNTS: {part!r}: path {path!r} must be absolute and normalised, not /")
        if any(m.name == name for m in mounts):
            raise EnvError(f"ASYA_STATE_PROXY_MOUNTS: mount {name!r} is there twice")
        for other in mounts:
            if (path + "/").startswith(other.path + "/") or (other.path + "/").startswith(path + "/"):
                raise EnvError(f"ASYA_STATE_PROXY_MOUNTS: {path!r} and {other.path!r} overlap")
        options: List[Tuple[str, str]] = []
        for option in filter(None, pieces[2].split(",") if len(pieces) > 2 else []):
            key, sep, value = option.partition("=")
            if not sep:
                raise EnvError(f"ASYA_STATE_PROXY_MOUNTS: {part!r}: option {option!r} is not key=value")
            options.append((key, value))
        mounts.append(Mount(name, path, tuple(options)))
    return mounts


def format_mounts(mounts: List[Mount]) -> str:
    """The inverse of `parse_mounts`."""
    return ";".join(str(mount) for mount in mounts)
