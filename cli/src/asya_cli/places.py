"""Which state `asya state` looks at: from options to a backend, a bucket and a prefix.

With a manifest all of it is known. Without one the actor is the one named, or in a state directory the only one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asya_cli.backends import Backend, parse_backend
from asya_cli.errors import Absent, NotAnswering, Refused
from asya_contract.names import DEFAULT_MOUNT_PATH, state_prefix
from asya_proxy.errors import BadRequest, KeyNotFound, StoreError
from asya_proxy.stores.base import Store, StoreConfig
from asya_proxy.stores.registry import make_store

DEADLINE = 30.0
"""Seconds for one question to the store."""


@dataclass(frozen=True, slots=True)
class Question:
    """The options of `asya state`, as given."""

    manifest: Path | None
    actor: str | None
    namespace: str
    mount: str
    backend: str
    state_dir: str


@dataclass(frozen=True, slots=True)
class StatePlace:
    """Where one mount's files lie, and `mount_path`, under which the handler sees them."""

    kind: str
    config: StoreConfig
    mount_path: str


async def find_place(question: Question, environ: Mapping[str, str]) -> StatePlace:
    """The mount that is meant.

    Raises:
        Refused: options that do not go together, or several actors to choose from.
        Absent: there is no state.
        NotAnswering: the backend could not be asked which actors there are.
    """
    backend = parse_backend(question.backend, question.state_dir)
    if question.manifest is not None:
        place = _of_manifest(question, question.manifest, backend, environ)
    elif backend is None:
        raise Refused("--backend manifest needs --manifest FILE")
    else:
        config = StoreConfig(backend.bucket or _default_bucket(), "", dict(environ) | dict(backend.variables))
        place = StatePlace(backend.kind, config, DEFAULT_MOUNT_PATH)
    if place.kind == "memory":
        raise Refused("--backend memory: that state lies in the memory of its own proxy")
    _exists(place)
    if question.manifest is None:
        prefix = await _prefix(question, place)
        config = StoreConfig(place.config.bucket, prefix, place.config.environ)
        place = StatePlace(place.kind, config, place.mount_path)
    return place


async def connected(place: StatePlace) -> Store:
    """A store for reading; nothing is written to a backend that exists.

    Raises:
        Refused, Absent, NotAnswering: why it cannot be asked.
    """
    try:
        store = make_store(place.kind, place.config)
        async with asyncio.timeout(DEADLINE):
            await store.connect()
    except (StoreError, TimeoutError) as error:
        raise as_cli_error(place, error) from None
    return store


def as_cli_error(place: StatePlace, error: StoreError | TimeoutError) -> Refused | Absent | NotAnswering:
    """What a failing store means for the user."""
    where = f"{place.kind} bucket {place.config.bucket}"
    if isinstance(error, TimeoutError):
        return NotAnswering(f"{where}: no answer within {DEADLINE:g} s")
    kind = Refused if isinstance(error, BadRequest) else Absent if isinstance(error, KeyNotFound) else NotAnswering
    return kind(f"{where}: {error}")


def _of_manifest(question: Question, manifest: Path, backend: Backend | None, environ: Mapping[str, str]) -> StatePlace:
    # Reading manifests takes longer to import than all else together: only where one is read.
    from asya_cli.manifest import read_actor
    from asya_cli.plan import mounts_of, proxy_variables

    actor = read_actor(manifest, question.actor)
    if actor.spec.state_proxy is None:
        raise Refused(f"{manifest}: {actor.name} has no stateProxy, so it has no state")
    mounts = mounts_of(actor.spec.state_proxy)
    for name, path, mount in mounts:
        if name == question.mount:
            env, sdk = proxy_variables(actor, name, mount, backend, "")
            return StatePlace(env.backend, StoreConfig(env.bucket, env.prefix, dict(environ) | sdk), path)
    raise Refused(f"--mount {question.mount!r}: {actor.name} has {', '.join(name for name, _, _ in mounts)}")


def _default_bucket() -> str:
    from asya_operator.state import DEFAULT_BUCKET

    return DEFAULT_BUCKET


def _exists(place: StatePlace) -> None:
    """Looking must not make a database where there is none."""
    if place.kind != "sqlite":
        return
    path = os.path.join(place.config.environ["SQLITE_DIR"], f"{place.config.bucket}.db")
    if not os.path.exists(path):
        raise Absent(f"there is no state in {path}: `asya run` makes it; --state DIR or --backend URL says where else")


async def _prefix(question: Question, place: StatePlace) -> str:
    if question.actor is not None:
        return state_prefix(question.namespace, question.actor, question.mount)
    if place.kind != "sqlite":  # others keep an index for each prefix, or hold far more than one machine's actors
        raise Refused("which actor's state? --actor NAME or --manifest FILE")
    store = await connected(place)
    inside = f"{question.namespace}/"
    try:
        async with asyncio.timeout(DEADLINE):
            page = await store.list(os.fsencode(inside), delimiter=True)
    except (StoreError, TimeoutError) as error:
        raise as_cli_error(place, error) from None
    finally:
        await store.close()
    owners = [os.fsdecode(prefix).removeprefix(inside).rstrip("/") for prefix in page.prefixes]
    names = sorted({owner.partition("@")[0] for owner in owners})
    if not names:
        raise Absent(
            f"no actor has state in namespace {question.namespace} of {place.kind} bucket {place.config.bucket}"
        )
    if len(names) > 1 or page.more:
        raise Refused(f"which actor's state? --actor {', --actor '.join(names)}")
    return state_prefix(question.namespace, names[0], question.mount)
