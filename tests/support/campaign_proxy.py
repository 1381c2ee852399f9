"""State proxies that can be killed and come back: run as a program by `support.campaign`.

    campaign_proxy.py BACKEND...     (then one JSON object a line: environ, pidfile, log)

This process imports everything, says `ready`, and forks a proxy for each line; where one dies by SIGKILL it forks the
next at once, as a kubelet would, and writes its pid. CAMPAIGN_ARM names a file: while it exists, the next change that
the store commits (with the file's text, the next of that kind) is the proxy's last deed: the file goes, and then the
proxy, before any answer. CAMPAIGN_LOSSES is a JSON object for `asya_proxy.testing.LossyStore`.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asya_proxy.__main__
import asya_proxy.mount
import asya_proxy.server
from asya_proxy.stores import registry
from asya_proxy.stores.base import (
    NOTHING_KNOWN,
    Appended,
    BaseStore,
    Body,
    Change,
    Known,
    Page,
    Precondition,
    Reading,
    Stat,
    Store,
    StoreConfig,
    TreeMoved,
)
from asya_proxy.testing.lossy import LossyStore

PR_SET_PDEATHSIG = 1


class LastDeed(BaseStore):
    """Forwards to `inner`; dies between a commit and its answer while armed."""

    def __init__(self, inner: Store, arm: str) -> None:
        self._inner = inner
        self._arm = arm
        self.traits = inner.traits

    def _committed(self, kind: str, key: bytes) -> None:
        if key.startswith(b".asya/") or not os.path.exists(self._arm):
            return
        wanted = Path(self._arm).read_text()
        if wanted in ("", kind):
            os.unlink(self._arm)
            os.kill(os.getpid(), signal.SIGKILL)

    async def connect(self) -> None:
        await self._inner.connect()
        self.traits = self._inner.traits

    async def close(self) -> None:
        await self._inner.close()

    async def ping(self) -> None:
        await self._inner.ping()

    async def head(self, key: bytes) -> Stat | None:
        return await self._inner.head(key)

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        return await self._inner.get(key, start=start, end=end, version=version)

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        return await self._inner.list(prefix, delimiter=delimiter, after=after, limit=limit)

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        stat = await self._inner.put(key, body, change)
        self._committed("put", key)
        return stat

    async def delete(self, key: bytes, change: Change) -> None:
        await self._inner.delete(key, change)
        self._committed("delete", key)

    async def append(self, key: bytes, body: Body, change: Change) -> Appended:
        appended = await self._inner.append(key, body, change)
        self._committed("append", key)
        return appended

    async def rename(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        stat = await self._inner.rename(source, target, change, when_source)
        self._committed("rename", target)
        return stat

    async def copy(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        stat = await self._inner.copy(source, target, change, when_source)
        self._committed("copy", target)
        return stat

    async def rename_tree(
        self, source: bytes, target: bytes, change: Change, known: Known = NOTHING_KNOWN
    ) -> TreeMoved:
        moved = await self._inner.rename_tree(source, target, change, known)
        self._committed("rename_tree", target)
        return moved

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], change: Change) -> Stat:
        stat = await self._inner.set_attrs(key, attrs, change)
        self._committed("set_attrs", key)
        return stat


def make_store(backend: str, config: StoreConfig) -> Store:
    """The configured store behind what this proxy shall suffer."""
    store = registry.make_store(backend, config)
    losses = os.environ.get("CAMPAIGN_LOSSES")
    if losses:
        settings: dict[str, Any] = json.loads(losses)
        store = LossyStore(store, **settings)
    return LastDeed(store, os.environ["CAMPAIGN_ARM"])


class Nursery:
    """Forks proxies as it is told, and again those that die by SIGKILL."""

    def __init__(self) -> None:
        self._children: dict[int, dict[str, Any]] = {}
        self._alarm, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def run(self) -> None:
        """Until standard input ends."""
        heard = b""
        while True:
            readable, _, _ = select.select([0, self._alarm], [], [])
            if self._alarm in readable:
                os.read(self._alarm, 4096)
                self._reap()
            if 0 in readable:
                piece = os.read(0, 1 << 16)
                if not piece:
                    return
                *lines, heard = (heard + piece).split(b"\n")
                for line in lines:
                    self._fork(json.loads(line))

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            told = self._children.pop(pid)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                self._fork(told)

    def _fork(self, told: dict[str, Any]) -> None:
        if not os.path.isdir(os.path.dirname(told["pidfile"])):
            return  # nobody waits for it any more
        pid = os.fork()
        if pid == 0:
            os._exit(self._serve(told))
        self._children[pid] = told
        fresh = Path(f"{told['pidfile']}.new")
        fresh.write_text(str(pid))
        fresh.rename(told["pidfile"])

    def _serve(self, told: dict[str, Any]) -> int:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        log = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, descriptor)
        os.environ.clear()
        os.environ.update(told["environ"])
        try:
            return asya_proxy.__main__.main(["serve"])
        except BaseException:
            traceback.print_exc()
            return 1


if __name__ == "__main__":
    asya_proxy.mount.make_store = make_store  # type: ignore[attr-defined]
    for name in sys.argv[1:]:
        importlib.import_module(f"asya_proxy.stores.{name}")
    print("ready", flush=True)
    Nursery().run()
