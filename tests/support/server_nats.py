"""A real nats-server with JetStream and file storage."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.ports import free_port
from support.servers import Server, require


class NatsServer(Server):
    """`config` is further configuration in nats-server's own language; `jetstream` False leaves it out.

    `credentials` (`user:password@`) go into `url` and may be changed. `binary` is another one than the system's.
    """

    def __init__(
        self,
        directory: Path,
        *,
        config: str = "",
        jetstream: bool = True,
        max_payload: int = 1 << 20,
        name: str = "test",
        binary: str = "",
    ) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.credentials = ""
        self._binary = binary
        store = f"jetstream {{ store_dir: {json.dumps(str(directory / 'jetstream'))} }}" if jetstream else ""
        self._config = "\n".join(
            [f"listen: 127.0.0.1:{self.port}", f"max_payload: {max_payload}", f"server_name: {name}", store, config, ""]
        )

    @property
    def url(self) -> str:
        return f"nats://{self.credentials}127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        config = self.directory / "nats.conf"
        config.write_text(self._config)
        return [self._binary or require("nats-server", "nats-server"), "-c", str(config)]

    def ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
            return probe.recv(4) == b"INFO"


@contextmanager
def nats_cluster(directory: Path, binary: str = "") -> Iterator[str]:
    """Three servers that replicate; the URL of all. JetStream answers only once they have elected a leader."""
    ports = [free_port() for _ in range(3)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    with ExitStack() as stack:
        servers = [
            NatsServer(
                directory / f"n{number}",
                config=f"cluster {{ name: c, listen: 127.0.0.1:{port}, routes: [{routes}] }}",
                name=f"n{number}",
                binary=binary,
            )
            for number, port in enumerate(ports)
        ]
        yield ",".join(stack.enter_context(server).url for server in servers)
