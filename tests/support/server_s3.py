"""Real servers that speak S3: versitygw for the S3 tests, a second opinion, and two that break promises.

Stock versitygw 1.8.0 reads an object's ETag before it opens the file, so that a read under contention may carry an
older ETag than its bytes, and refuses `f/g` beside a file `f`, which S3 does not; `support.waivers` has the rest.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import boto3

from support.binaries import built
from support.ports import free_port
from support.servers import Server, ServerMissing

BUCKET = "asya-state"


class BucketServer(Server):
    """A server with one bucket and one user. `name` is the one that waivers go by."""

    name = ""
    access_key = "asyaasya"
    secret_key = "secretsecret"
    bucket = BUCKET

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()

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

    def raw(self) -> Any:
        """A client of the SDK, beside the store."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )

    def make_bucket(self) -> None:
        """Where it is not there already."""
        raw = self.raw()
        if not any(bucket["Name"] == BUCKET for bucket in raw.list_buckets()["Buckets"]):
            raw.create_bucket(Bucket=BUCKET)

    def ready(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        return True


class S3Server(BucketServer):
    """versitygw over a directory.

    The directory must be on a file system with user extended attributes (ext4, or tmpfs on Linux 6.6 and later).
    """

    name = "versitygw"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        (directory / "data" / BUCKET).mkdir(parents=True, exist_ok=True)
        (directory / "users").mkdir(exist_ok=True)

    def add_user(self, name: str, secret: str) -> dict[str, str]:
        """A user who may do nothing in the bucket, as `environ`."""
        who = ["--access", self.access_key, "--secret", self.secret_key, "--endpoint-url", self.endpoint]
        made = ["create-user", "--access", name, "--secret", secret, "--role", "user"]
        subprocess.run([built("versitygw"), "admin", *who, *made], check=True, capture_output=True)
        return {**self.environ, "AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": secret}

    def command(self) -> Sequence[str]:
        who = ["--access", self.access_key, "--secret", self.secret_key, "--iam-dir", str(self.directory / "users")]
        where = ["--port", f"127.0.0.1:{self.port}", "--quiet", "--keep-alive", "posix", str(self.directory / "data")]
        return [built("versitygw"), *who, *where]


class MinioServer(BucketServer):
    """MinIO over a directory: atomic puts and completions, unconditional deletes."""

    name = "minio"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._console = free_port()

    def command(self) -> Sequence[str]:
        ports = ["--address", f"127.0.0.1:{self.port}", "--console-address", f"127.0.0.1:{self._console}"]
        return [built("minio"), "server", "--quiet", *ports, str(self.directory / "data")]

    def environment(self) -> dict[str, str]:
        user = {"MINIO_ROOT_USER": self.access_key, "MINIO_ROOT_PASSWORD": self.secret_key}
        return {**super().environment(), **user, "MINIO_UPDATE": "off", "MINIO_BROWSER": "off"}

    def ready(self) -> bool:
        with urllib.request.urlopen(f"{self.endpoint}/minio/health/ready", timeout=1) as answer:
            return bool(answer.status == 200)

    def start(self) -> Self:
        super().start()
        self.make_bucket()
        return self


class GoFakeS3(BucketServer):
    """gofakes3 in memory: atomic puts; completions and deletes whatever the condition. It has no users."""

    name = "gofakes3"

    def command(self) -> Sequence[str]:
        return [built("gofakes3"), "-backend", "memory", "-host", f"127.0.0.1:{self.port}", "-initialbucket", BUCKET]


class S3Proxy(BucketServer):
    """S3Proxy in memory: every probe one after the other passes; If-Match looks first and writes later."""

    name = "s3proxy"

    def command(self) -> Sequence[str]:
        java = shutil.which("java")
        if java is None:
            raise ServerMissing("java is missing: apt-get install default-jre-headless")
        settings = self.directory / "s3proxy.conf"
        settings.write_text(
            f"s3proxy.endpoint={self.endpoint}\n"
            "s3proxy.authorization=aws-v2-or-v4\n"
            f"s3proxy.identity={self.access_key}\n"
            f"s3proxy.credential={self.secret_key}\n"
            "jclouds.provider=transient-nio2\njclouds.identity=x\njclouds.credential=x\n"
        )
        return [java, "-Xmx512m", "-jar", built("s3proxy.jar"), "--properties", str(settings)]

    def start(self) -> Self:
        super().start()
        self.make_bucket()
        return self
