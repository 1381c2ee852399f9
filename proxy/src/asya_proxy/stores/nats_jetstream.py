"""JetStream's API as the NATS store uses it: publish, last message of a subject, scan, purge.

Requests and answers are those of nats-server's JSON API; its refusals become our errors. Streams, subjects
and sequences only: files, keys and write ids are the store's.
"""

from __future__ import annotations

import asyncio
import base64
import calendar
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg

from asya_proxy.errors import Quota, ReadOnly, Timeout, TooLarge, Unavailable
from asya_proxy.stores.nats_link import Link
from asya_proxy.stores.nats_record import parse_headers

API = "$JS.API"
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_STREAM = "Nats-Expected-Stream"
BATCH = 500
"""Messages of a scan in flight."""

# Error codes of the API (nats-server, server/errors.json).
NO_STREAM = 10059
NO_JETSTREAM = (10039, 10076)
NO_PEERS = (10005, 10074)
NOT_NOW = 10008
_NO_MESSAGE = 10037
_WRONG_SEQUENCE = (10071, 10164)
_FULL = (10023, 10028, 10047)
_STORE_FAILED = 10077
_TOO_LARGE = (10054, 10097)
_SEALED = 10109


class WrongSequence(Exception):
    """The subject's last message is another one than the publish expected."""


@dataclass(frozen=True, slots=True)
class Message:
    """A stored message; `time_ns` is the server's, in ns of the Unix epoch."""

    subject: str
    sequence: int
    time_ns: int
    headers: Mapping[str, str]
    data: bytes


class JetStream:
    """`timeout` is for each answer, in seconds."""

    def __init__(self, link: Link, timeout: float) -> None:
        self.link = link
        self._timeout = timeout

    async def call(self, request: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request of the API (`STREAM.INFO.name`). The error in the answer, if any, is left to the caller."""
        data = json.dumps(body).encode() if body is not None else b""
        answer: dict[str, Any] = json.loads(str((await self.link.request(f"{API}.{request}", data)).data, "utf-8"))
        return answer

    async def last_sequence(self, stream: str) -> int:
        with changing_nothing():
            answer = await self.call(f"STREAM.INFO.{stream}")
        check_answer(answer, "reading the bucket's state")
        return int(answer["state"]["last_seq"])

    async def publish(
        self,
        stream: str,
        subject: str,
        data: bytes | bytearray,
        headers: Mapping[str, str] | None = None,
        expect: int | None = None,
    ) -> int:
        """Store a message; its sequence. Raises WrongSequence where `expect` is not the subject's last one."""
        headers = {**(headers or {}), EXPECTED_STREAM: stream}
        if expect is not None:
            headers[EXPECTED] = str(expect)
        answer = json.loads(str((await self.link.request(subject, data, headers)).data, "utf-8"))
        check_answer(answer, "writing")
        return int(answer["seq"])

    async def last(self, stream: str, subject: str) -> Message | None:
        """The last message of a subject, from the stream's leader."""
        with changing_nothing():
            answer = await self.call(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        if answer.get("error", {}).get("err_code") == _NO_MESSAGE:
            return None
        check_answer(answer, "reading")
        found = answer["message"]
        headers = parse_headers(base64.b64decode(found["hdrs"])) if found.get("hdrs") else {}
        data = base64.b64decode(found.get("data") or "")
        return Message(found["subject"], found["seq"], _time_ns(found["time"]), headers, data)

    async def data_of(self, stream: str, subject: str) -> bytes | None:
        """The data of a message that never changes: from any replica, where that one lags from the leader."""
        with changing_nothing():
            message = await self.link.request(f"{API}.DIRECT.GET.{stream}.{subject}")
        if "Status" not in (message.headers or {}):
            return bytes(message.data)
        found = await self.last(stream, subject)
        return found.data if found is not None else None

    async def purge(self, stream: str, subject: str, before: int = 0) -> None:
        """Remove a subject's messages, with `before` only those of lower sequences."""
        body: dict[str, Any] = {"filter": subject} | ({"seq": before} if before else {})
        check_answer(await self.call(f"STREAM.PURGE.{stream}", body), "purging")

    async def scan(self, stream: str, pattern: str, since: int = 0) -> AsyncIterator[Message]:
        """The last message of every subject, headers only, beyond sequence `since`.

        Of a replicated stream any replica may answer, and may lag a moment.
        """
        consumer = secrets.token_hex(8)
        config: dict[str, Any] = {"name": consumer, "ack_policy": "none", "filter_subject": pattern}
        config |= {"headers_only": True, "mem_storage": True, "inactive_threshold": 30 * 10**9}
        config |= {"deliver_policy": "last_per_subject", "replay_policy": "instant"}
        if since:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": since + 1}
        body = {"stream_name": stream, "config": config}
        answer = await self.call(f"CONSUMER.CREATE.{stream}.{consumer}.{pattern}", body)
        check_answer(answer, "listing")
        left = answer["num_pending"]
        ask = json.dumps({"batch": BATCH, "expires": int(self._timeout * 1e9)}).encode()
        next_batch = f"{API}.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        patience = time.monotonic() + self._timeout
        async with self.link.mailbox() as (reply, arriving):
            while left:
                await self.link.send(next_batch, ask, reply)
                for _ in range(min(BATCH, left)):
                    message = await self._arrival(arriving)
                    headers = message.headers or {}
                    if headers.get("Status") == "503" and time.monotonic() < patience:
                        # A fresh consumer that the other servers of a cluster have not heard of yet.
                        await asyncio.sleep(0.01)
                        break
                    if "Status" in headers:
                        text = f"{headers['Status']} {headers.get('Description', '')}"
                        raise Unavailable(f"listing: NATS answers {text}", ambiguous=False)
                    about = message.metadata
                    left = about.num_pending
                    time_ns = int(about.timestamp.timestamp() * 1e9)
                    yield Message(message.subject, about.sequence.stream, time_ns, headers, b"")
                    if not left:
                        break
            await self.link.send(f"{API}.CONSUMER.DELETE.{stream}.{consumer}", b"", "")

    async def _arrival(self, arriving: asyncio.Queue[Msg | None]) -> Msg:
        """The next message of a scan, within the deadline."""
        try:
            async with asyncio.timeout(self._timeout):
                message = await arriving.get()
        except TimeoutError:
            raise Timeout(f"listing: NATS did not answer within {self._timeout:g} s", ambiguous=False) from None
        if message is None:
            raise Unavailable("the NATS connection was lost while listing", ambiguous=False)
        return message


@contextlib.contextmanager
def changing_nothing() -> Iterator[None]:
    """Around what no reader can see: a lost answer leaves nothing open then, also where a change asks it first."""
    try:
        yield
    except Unavailable as error:
        error.ambiguous = False
        raise


def check_answer(answer: Mapping[str, Any], doing: str) -> None:
    """Raise what an answer says. An error that is an answer is a refusal: nothing was done."""
    error = answer.get("error")
    if error is None:
        return
    code, text = error.get("err_code", 0), error.get("description", "")
    if code in _WRONG_SEQUENCE:
        raise WrongSequence(text)
    if code in _FULL or (code == _STORE_FAILED and "maximum" in text):
        raise Quota(f"{doing}: the NATS bucket, its account or the server's disk is full ({text})")
    if code in _TOO_LARGE:
        raise TooLarge(f"{doing}: larger than the NATS stream allows ({text}); raise its max_msg_size")
    if code == _SEALED:
        raise ReadOnly(f"{doing}: the NATS stream is sealed")
    raise Unavailable(f"{doing}: NATS answers {text} ({code})", ambiguous=False)


def _time_ns(text: str) -> int:
    """RFC 3339 in UTC as JetStream writes it, `2026-01-02T03:04:05.123456789Z`, in ns of the Unix epoch."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    year, month, day = whole[:10].split("-")
    hour, minute, second = whole[11:].split(":")
    seconds = calendar.timegm((int(year), int(month), int(day), int(hour), int(minute), int(second)))
    return seconds * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)
