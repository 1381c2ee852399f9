"""A real versitygw for the S3 tests, and where the fake stands in for it.

`WAIVERS` are the cases of the conformance kit that stock versitygw 1.8.0 cannot pass, with what it does instead;
the strict fake runs them. It also reads an object's ETag before it opens the file, so that a read under contention
may carry an older ETag than its bytes, and refuses `f/g` beside a file `f`, which S3 does not.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from support.binaries import built
from support.servers import Server, free_port

BUCKET = "asya-state"

WAIVERS = {
    "test_a_put_and_a_delete_do_not_both_win": "DELETE compares and removes without a lock: both win 1-2 % of rounds"
}


class S3Server(Server):
    """versitygw over a directory, with one bucket and one user.

    The directory must be on a file system with user extended attributes (ext4, or tmpfs on Linux 6.6 and later).
    """

    access_key = "asyaasya"
    secret_key = "secretsecret"
    bucket = BUCKET

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()
        (directory / "data" / BUCKET).mkdir(parents=True, exist_ok=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What an S3 client needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }

    def command(self) -> Sequence[str]:
        who = ["--access", self.access_key, "--secret", self.secret_key]
        where = ["--port", f"127.0.0.1:{self.port}", "--quiet", "--keep-alive", "posix", str(self.directory / "data")]
        return [built("versitygw"), *who, *where]

    def ready(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        return True
