"""versitygw with AWS-style users and policies: its IAM server, and a gateway that asks it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3

from support.binaries import built
from support.ports import free_port
from support.server_s3 import S3Server
from support.servers import Server


class IamServer(Server):
    """The IAM API over files; its root user is that of S3Server."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.private = directory / "iam.sock"
        (directory / "users").mkdir(exist_ok=True)

    def command(self) -> Sequence[str]:
        who = ["--access", S3Server.access_key, "--secret", S3Server.secret_key]
        where = ["--dir", str(self.directory / "users"), "--private-ports", str(self.private)]
        return [built("versitygw"), *who, "--port", f"127.0.0.1:{self.port}", "iam", "--quiet", *where]

    def ready(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        return self.private.exists()

    def user(self, name: str, policy: str) -> dict[str, str]:
        """A new user whose only permission is `policy` (JSON); its credentials as variables."""
        iam: Any = boto3.client(
            "iam",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=S3Server.access_key,
            aws_secret_access_key=S3Server.secret_key,
        )
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="asya-state", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        iam.close()
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


class S3ServerWithUsers(S3Server):
    """A gateway whose users and policies are those of an IamServer."""

    def __init__(self, directory: Path, users: IamServer) -> None:
        super().__init__(directory)
        self._users = users

    def command(self) -> Sequence[str]:
        binary, *rest = super().command()
        return [binary, "--iam-standalone-endpoint", str(self._users.private), "--iam-cache-disable", *rest]
