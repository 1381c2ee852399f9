"""A real server of the GCS wire: fake-gcs-server behind the front in `tests/servers/gcs`."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.binaries import built
from support.ports import free_port
from support.servers import Server

BUCKET = "asya-state"


class GcsServer(Server):
    """gcsd with one bucket; its objects live as long as its process."""

    bucket = BUCKET

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What a GCS client needs to reach it."""
        return {"STORAGE_EMULATOR_HOST": self.endpoint}

    def command(self) -> Sequence[str]:
        return [built("gcsd"), f"127.0.0.1:{self.port}", BUCKET]

    def ready(self) -> bool:
        return "kind" in self._call("/storage/v1/b?project=none")

    def fault(self, on: str, **how: Any) -> None:
        """What happens to the next request whose "METHOD /path?query" matches `on`: see tests/servers/gcs/fault.go."""
        self._call("/_fault", {"On": on, **how})

    def state(self) -> dict[str, Any]:
        """`left`: faults that have not happened; `waiting`: requests held; `seen`: requests since `release`."""
        return self._call("/_fault")

    def release(self) -> None:
        """Let held requests go on, and forget all faults."""
        self._call("/_release", {})

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.endpoint + path, data), timeout=5) as answer:
            text = answer.read()
        found: dict[str, Any] = json.loads(text) if text else {}
        return found
