"""One client of a campaign, run as a program by `support.campaign`: the shim's client, no hooks.

    campaign_worker.py JSON      (says `ready`, waits for a line, works, prints one JSON object per call)

Each record has `id`, `start` and `end` (monotonic seconds, one clock for the machine) and `outcome`: `done`,
`conflict` (definitely not), `unknown` (may have happened).
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from asya_contract.env import Mount, ShimEnv
from asya_shim.errors import StateConflictError, StateUnavailableError
from asya_shim.remote import Remote

Record = dict[str, Any]


class Client:
    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.name = str(told["name"])
        self.key = str(told.get("key", "file")).encode()
        self.count = int(told.get("count", 1))
        self.records: list[Record] = []
        self._dice = random.Random(self.name)

    def remote(self) -> Remote:
        return Remote(Mount(), ShimEnv.from_env(os.environ))

    def call(self, work: Callable[[], Any], **about: Any) -> Any:
        """One call, recorded. What `work` returns, or None where it failed."""
        record: Record = {"start": time.monotonic(), "outcome": "done", **about}
        self.records.append(record)
        try:
            return work()
        except StateConflictError:
            record["outcome"] = "conflict"
        except FileExistsError:
            record["outcome"] = "exists"
        except StateUnavailableError as error:
            record["outcome"] = "unknown"
            record["error"] = str(error)
        finally:
            record["end"] = time.monotonic()
        return None

    def pause(self) -> None:
        """After a conflict: give way, a little."""
        time.sleep(self._dice.random() * 0.004)

    # Tasks

    def counter(self) -> None:
        """Increment until `count` increments are acknowledged. The file is `{"n": value, "id": who, "prev": id}`."""
        remote = self.remote()
        done = attempt = 0
        while done < self.count:
            try:
                content = remote.read(self.key)
            except StateUnavailableError:
                continue
            was = json.loads(content.data) if content is not None else {"n": 0, "id": ""}
            attempt += 1
            mine = {"n": was["n"] + 1, "id": f"{self.name}.{attempt}", "prev": was["id"]}
            condition: dict[str, Any] = {"if_absent": True}
            if content is not None:
                condition = {"if_version": content.version}
            body = json.dumps(mine).encode()
            version = self.call(lambda: remote.write(self.key, body, **condition), **mine)  # noqa: B023
            if version:
                done += 1
            else:
                self.pause()

    def append(self) -> None:
        remote = self.remote()
        for number in range(self.count):
            line = f"{self.name}.{number}"
            self.call(lambda: remote.append(self.key, f"{line}\n".encode()), id=line)  # noqa: B023

    def create(self) -> None:
        """`threads` racers, each trying every one of `count` names in the same order."""
        threads = [
            threading.Thread(target=self._race, args=(number,)) for number in range(int(self.told.get("threads", 8)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _race(self, number: int) -> None:
        remote = self.remote()
        for name in range(self.count):
            me = f"{self.name}.{number}"
            key = f"names/{name}".encode()
            self.call(lambda: remote.write(key, me.encode(), if_absent=True), id=me, key=name)  # noqa: B023

    def register(self) -> None:
        """Reads, swaps of what was read last and, if `plain`, unconditional writes: a small history to check."""
        remote = self.remote()
        seen: tuple[str | None, str | None] = (None, None)
        for number in range(self.count):
            kinds = ("read", "write", "write") if self.told.get("plain") else ("read", "swap", "swap")
            kind = self._dice.choice(kinds)
            value = f"{self.name}.{number}"
            if kind == "read":
                record_at = len(self.records)
                content = self.call(lambda: remote.read(self.key), id=value, kind="read")
                record = self.records[record_at]
                if record["outcome"] == "done":
                    text = content.data.decode() if content is not None else None
                    record["value"] = text
                    seen = (text, content.version if content is not None else None)
                continue
            condition: dict[str, Any] = {}
            if kind == "swap":
                condition = {"if_absent": True} if seen[1] is None else {"if_version": seen[1]}
            version = self.call(
                lambda: remote.write(self.key, value.encode(), **condition),  # noqa: B023
                id=value,
                kind=kind,
                value=value,
                expected=seen[0],
            )
            if version and kind == "swap":
                seen = (value, version)

    def files(self) -> None:
        """Write `count` files of their own, and keep on trying until each is acknowledged."""
        remote = self.remote()
        for number in range(self.count):
            key = f"{self.name}/{number}"
            data = f"{key} ".encode() * (1 + number % 50)
            while not self.call(lambda: remote.write(key.encode(), data, if_absent=True), id=key):  # noqa: B023
                if self.records[-1]["outcome"] == "exists":
                    break  # an attempt given up as unknown had landed
                self.pause()


def main() -> None:
    client = Client(json.loads(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    getattr(client, client.told["task"])()
    for record in client.records:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
