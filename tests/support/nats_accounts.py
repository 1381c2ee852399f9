"""An operator, an account and a user of NATS's decentralised authentication, as `nsc` makes them.

Formats: github.com/nats-io/nkeys (keys) and github.com/nats-io/jwt (claims, version 2).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

OPERATOR, ACCOUNT, USER, SEED = 14 << 3, 0, 20 << 3, 18 << 3


def _text(raw: bytes) -> str:
    whole = raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(whole).decode().rstrip("=")


@dataclass
class Identity:
    """A key pair of one `kind`."""

    kind: int
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public(self) -> str:
        raw = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _text(bytes([self.kind]) + raw)

    @property
    def seed(self) -> str:
        prefix = bytes([SEED | self.kind >> 5, (self.kind & 31) << 3])
        return _text(prefix + self.key.private_bytes_raw())

    def issue(self, subject: Identity, name: str, claims: dict[str, Any]) -> str:
        """A JWT about `subject`, signed by this identity."""
        body = {"iat": 1700000000, "iss": self.public, "name": name, "sub": subject.public, "nats": claims}
        body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
        parts = [_json({"typ": "JWT", "alg": "ed25519-nkey"}), _json(body)]
        return ".".join([*parts, _base64(self.key.sign(".".join(parts).encode()))])


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _json(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


class Trust:
    """An operator with one account that has JetStream: `config` for the server, `credentials` for a new user."""

    def __init__(self) -> None:
        operator, system, self._account = Identity(OPERATOR), Identity(ACCOUNT), Identity(ACCOUNT)
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        claims = {"type": "account", "version": 2, "limits": {**limits, "wildcards": True}}
        storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        with_streams = {**claims, "limits": {**limits, **storage, "wildcards": True}}
        own = operator.issue(operator, "test", {"type": "operator", "version": 2, "system_account": system.public})
        accounts = {
            system.public: operator.issue(system, "SYS", claims),
            self._account.public: operator.issue(self._account, "state", with_streams),
        }
        preload = "\n".join(f"{public}: {jwt}" for public, jwt in accounts.items())
        self.config = f"operator: {own}\nresolver: MEMORY\nresolver_preload: {{\n{preload}\n}}\n"

    def credentials(self) -> str:
        """The text of a credentials file."""
        user = Identity(USER)
        jwt = self._account.issue(user, "proxy", {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1})
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )
