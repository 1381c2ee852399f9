"""Housekeeping: what this process must purge later, and the sweep for what others left behind.

Replaced chunks go after a grace, delete markers after the window of write ids. The list is lost with the
process and bounded; what is lost or did not fit is found by the sweep.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections.abc import Sequence

from asya_proxy.errors import StoreError
from asya_proxy.stores.nats_index import scan_heads
from asya_proxy.stores.nats_jetstream import JetStream
from asya_proxy.stores.nats_record import Run, encode_key, subject_filter
from asya_proxy.stores.nats_streams import Streams

log = logging.getLogger(__name__)

ORPHAN_AGE = 3600.0
"""Seconds without progress after which chunks that no file names belong to a dead writer."""
SWEEP_EVERY = 3600.0
MAX_GARBAGE = 10_000


class House:
    """`window` is how long write ids are remembered, in seconds."""

    def __init__(self, streams: Streams, prefix: bytes, window: float) -> None:
        self._streams = streams
        self._prefix = prefix
        self._window = window
        self._heap: list[tuple[float, int, str, str, int]] = []
        self._ordinal = itertools.count()

    def drop(self, name: str, runs: Sequence[Run], after: float = 0.0) -> None:
        """Purge uploads of the file with the encoded key `name`, in `after` seconds."""
        for run in runs:
            self._add(after, self._streams.chunks, self._streams.chunk(name, run.upload, "*"), 0)

    def drop_marker(self, name: str, version: int) -> None:
        """Purge a delete marker once nobody may repeat the delete; what was written since stays."""
        self._add(self._window, self._streams.files, self._streams.file(name), version + 1)

    def _add(self, seconds: float, stream: str, subject: str, before: int) -> None:
        if len(self._heap) < MAX_GARBAGE:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._ordinal), stream, subject, before))

    async def keep(self, jetstream: JetStream) -> None:
        """Purge and sweep, for ever."""
        sweep_at = time.monotonic() + SWEEP_EVERY * random.uniform(0.1, 1)  # noqa: S311
        while True:
            await asyncio.sleep(random.uniform(5, 15))  # noqa: S311
            try:
                await self.purge_due(jetstream)
                if time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + SWEEP_EVERY * random.uniform(0.5, 1.5)  # noqa: S311
                    await self.sweep(jetstream)
            except Exception as error:
                # Also what is a defect: nobody would notice before the disk is full that this task has ended.
                level = logging.WARNING if isinstance(error, StoreError) else logging.ERROR
                log.log(level, "house-keeping failed", extra={"bucket": self._streams.bucket, "cause": repr(error)})

    async def purge_due(self, jetstream: JetStream, now: float | None = None) -> int:
        """Purge what is due by `now` (monotonic seconds); how many subjects. What fails is left to the sweep."""
        done = 0
        while self._heap and self._heap[0][0] <= (time.monotonic() if now is None else now):
            _, _, stream, subject, before = heapq.heappop(self._heap)
            await jetstream.purge(stream, subject, before)
            done += 1
        return done

    async def sweep(self, jetstream: JetStream, now_ns: int | None = None) -> tuple[int, int]:
        """Purge chunks that no file names and old delete markers, whoever left them; how many of each.

        Chunks are looked at before files: what a file names by then is spared, and older uploads commit no more.
        """
        now_ns = time.time_ns() if now_ns is None else now_ns
        streams = self._streams
        newest: dict[str, int] = {}
        pattern = f"asya.{streams.bucket}.chunk.{subject_filter(self._prefix)}"
        async for found in jetstream.scan(streams.chunks, pattern):
            upload = found.subject.rpartition(".")[0]
            newest[upload] = max(newest.get(upload, 0), found.time_ns)
        orphans = {upload for upload, time_ns in newest.items() if time_ns < now_ns - int(ORPHAN_AGE * 1e9)}
        markers = []
        async for key, head in scan_heads(jetstream, streams, self._prefix):
            name = encode_key(self._prefix + key)
            if head.deleted and head.written_ns < now_ns - int(2e9 * self._window):
                markers.append((streams.file(name), head.version))
            orphans.difference_update(streams.chunk(name, run.upload, "")[:-1] for run in head.runs)
        for upload in orphans:
            await jetstream.purge(streams.chunks, f"{upload}.*")
        for subject, version in markers:
            await jetstream.purge(streams.files, subject, version + 1)
        if orphans or markers:
            log.info("swept %d uploads and %d markers", len(orphans), len(markers), extra={"bucket": streams.bucket})
        return len(orphans), len(markers)
