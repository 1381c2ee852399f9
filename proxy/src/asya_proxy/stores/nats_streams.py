"""The streams of a NATS bucket: found, made where that is allowed, and refused where they would lose state."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from asya_proxy.errors import BadRequest, KeyNotFound, PermissionDenied, Unavailable
from asya_proxy.stores.nats_jetstream import NO_JETSTREAM, NO_PEERS, NO_STREAM, NOT_NOW, JetStream, check_answer

log = logging.getLogger(__name__)

ATOMIC_REPLICAS = (2, 10)
"""The first nats-server that compares atomically where a stream has replicas. 2.9.10 was seen to lose 7 of 40
acknowledged increments there, and none with one replica."""

LOOKS = 10
LOOK_AGAIN = 0.1
"""How often, and after how many seconds each, a stream is looked for that could not be made: another proxy that
starts at the same time may be making it."""

PEERS = 20
"""How often as many servers are asked for as hold three replicas: those of a cluster that starts come one by one."""

_COMMON = {"retention": "limits", "storage": "file", "discard": "new", "max_msgs_per_subject": 1}


@dataclass(frozen=True, slots=True)
class Streams:
    """Names: `KV_b` is a KV bucket like any other and holds the files, the others what does not fit beside them."""

    bucket: str

    @property
    def files(self) -> str:
        return f"KV_{self.bucket}"

    @property
    def chunks(self) -> str:
        return f"ASYA_{self.bucket}_CHUNKS"

    @property
    def ids(self) -> str:
        return f"ASYA_{self.bucket}_IDS"

    def file(self, name: str) -> str:
        """The subject of a file, of its encoded key."""
        return f"$KV.{self.bucket}.{name}"

    def chunk(self, name: str, upload: str, index: int | str) -> str:
        return f"asya.{self.bucket}.chunk.{name}.{upload}.{index}"

    def id(self, name: str, token: str) -> str:
        return f"asya.{self.bucket}.id.{name}.{token}"

    async def prepare(self, jetstream: JetStream, window: float) -> None:
        """Find or make all three; write ids are kept for `window` seconds.

        Raises KeyNotFound (missing and not made), PermissionDenied, BadRequest.
        """
        files = await _find(
            jetstream,
            {"name": self.files, "subjects": [self.file(">")], "allow_rollup_hdrs": True, "deny_delete": True},
            f"nats kv add {self.bucket} --history=1 --storage=file --replicas=3",
        )
        self._check_files(files)
        if files.get("num_replicas", 1) > 1 and jetstream.link.version < ATOMIC_REPLICAS:
            raise BadRequest(
                f"NATS stream {self.files} has replicas, and nats-server before 2.10 loses writes there that meet: "
                f"upgrade the servers, or (not highly available): nats stream edit {self.files} --replicas=1"
            )
        await _find(
            jetstream,
            {"name": self.chunks, "subjects": [f"asya.{self.bucket}.chunk.>"], "allow_direct": True},
            f"nats stream add {self.chunks} --subjects='asya.{self.bucket}.chunk.>' --max-msgs-per-subject=1 "
            "--discard=new --storage=file --allow-direct --replicas=3 --defaults",
        )
        window_ns = int(window * 1e9)
        ids = await _find(
            jetstream,
            {"name": self.ids, "subjects": [f"asya.{self.bucket}.id.>"], "max_age": window_ns},
            f"nats stream add {self.ids} --subjects='asya.{self.bucket}.id.>' --max-msgs-per-subject=1 "
            f"--discard=new --storage=file --max-age={window:.0f}s --replicas=3 --defaults",
        )
        if 0 < ids.get("max_age", 0) < window_ns:
            answer = await jetstream.call(f"STREAM.UPDATE.{self.ids}", {**ids, "max_age": window_ns})
            if "error" in answer:
                raise BadRequest(
                    f"NATS stream {self.ids} keeps write ids {ids['max_age'] / 1e9:.0f} s and this proxy needs "
                    f"{window:.0f}: nats stream edit {self.ids} --max-age={window:.0f}s"
                )

    def _check_files(self, config: dict[str, Any]) -> None:
        if config.get("discard") == "old" and (config.get("max_bytes", -1) > 0 or config.get("max_msgs", -1) > 0):
            raise BadRequest(
                f"NATS stream {self.files} is limited and discards old messages: state would vanish when it is full; "
                f"change it by: nats stream edit {self.files} --discard=new"
            )
        if config.get("max_age"):
            log.warning(
                "the bucket forgets values (its TTL)", extra={"bucket": self.bucket, "seconds": config["max_age"] / 1e9}
            )
        if config.get("storage") == "memory":
            log.warning("the bucket lies in memory: a restart of the server loses it", extra={"bucket": self.bucket})


async def _find(jetstream: JetStream, config: dict[str, Any], command: str) -> dict[str, Any]:
    """The configuration of a stream, made if it is missing."""
    name = config["name"]
    try:
        answer = await jetstream.call(f"STREAM.INFO.{name}")
    except Unavailable as error:
        if not error.ambiguous and not jetstream.link.may_have_jetstream:
            raise BadRequest(
                f"JetStream is not enabled on this NATS server: start it with `nats-server -js -sd DIR` ({error})"
            ) from error
        raise
    code = answer.get("error", {}).get("err_code", 0)
    if code in NO_JETSTREAM:
        raise BadRequest("JetStream is not enabled for this NATS account: give the account a jetstream block")
    if code == NO_STREAM:
        answer = await _make(jetstream, {**_COMMON, **config}, command)
    check_answer(answer, f"reading stream {name}")
    found: dict[str, Any] = answer["config"]
    return found


async def _make(jetstream: JetStream, config: dict[str, Any], command: str) -> dict[str, Any]:
    name = config["name"]
    answer: dict[str, Any] = {}
    may_replicate = jetstream.link.clustered and jetstream.link.version >= ATOMIC_REPLICAS
    for replicas in (3, 1) if may_replicate else (1,):
        try:
            answer = await _create(jetstream, {**config, "num_replicas": replicas})
        except PermissionDenied as error:
            raise KeyNotFound(
                f"NATS stream {name} is missing and this user may not make it ({error}); have it made: {command}"
            ) from error
        if answer.get("error", {}).get("err_code", 0) not in NO_PEERS:
            break
    if answer.get("error", {}).get("err_code", 0) == NOT_NOW:
        check_answer(answer, f"making stream {name}")
    if "error" in answer:
        # The server refuses subjects that another proxy's half-made stream of this very name has just taken.
        made = await _made_meanwhile(jetstream, name)
        if made is not None:
            return made
        reason = answer["error"].get("description")
        raise KeyNotFound(f"NATS stream {name} is missing and cannot be made ({reason}); have it made: {command}")
    replicas = answer["config"].get("num_replicas", 1)
    log.info("stream made, replicas: %s", replicas, extra={"stream": name})
    if jetstream.link.clustered and replicas == 1:
        log.warning("no replicas: one server's loss is the stream's; see the docs on NATS", extra={"stream": name})
    return answer


async def _create(jetstream: JetStream, config: dict[str, Any]) -> dict[str, Any]:
    """The answer, once enough servers are there or have not come for a while."""
    for _ in range(PEERS):
        answer = await jetstream.call(f"STREAM.CREATE.{config['name']}", config)
        if answer.get("error", {}).get("err_code", 0) not in NO_PEERS or config["num_replicas"] == 1:
            break
        await asyncio.sleep(LOOK_AGAIN)
    return answer


async def _made_meanwhile(jetstream: JetStream, name: str) -> dict[str, Any] | None:
    """The stream as another proxy made it since we looked; None where nobody did."""
    for _ in range(LOOKS):
        answer = await jetstream.call(f"STREAM.INFO.{name}")
        if "error" not in answer:
            return answer
        if answer["error"].get("err_code", 0) != NO_STREAM:
            check_answer(answer, f"reading stream {name}")
        await asyncio.sleep(LOOK_AGAIN)
    return None
