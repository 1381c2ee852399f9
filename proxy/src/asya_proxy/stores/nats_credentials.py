"""A NATS credentials file: a user's JWT, and the seed that proves it is theirs.

The seed is an nkey (github.com/nats-io/nkeys): base32 of two prefix bytes, 32 bytes of an Ed25519 seed and a
checksum. The file is read anew for each connection, so that rotated credentials need no restart.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path

from asya_proxy.errors import BadRequest

_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END USER NKEY SEED-+")
_USER_SEED = 0x9500
"""The two prefix bytes of a user's seed: 18 << 3 | 20 << 3 >> 5, and (20 << 3 & 31) << 3, as `SU` in base32."""


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """`seed` is 32 bytes; neither field may reach a log."""

    jwt: str
    seed: bytes

    @classmethod
    def read(cls, path: str) -> Credentials:
        """Raises BadRequest: no such file, or not one of these."""
        try:
            text = Path(path).read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise BadRequest(f"NATS_CREDS_FILE={path!r} cannot be read: {error}") from error
        jwt, seed = _JWT.search(text), _SEED.search(text)
        if jwt is None or seed is None:
            raise BadRequest(
                f"NATS_CREDS_FILE={path!r} is no credentials file: expected a NATS USER JWT and a USER NKEY SEED, "
                "as `nsc generate creds` or `nats auth user credential` writes them"
            )
        return cls(jwt[1], _decode_seed(seed[1], path))

    def sign(self, nonce: str) -> bytes:
        """The server's challenge, signed: base64 of 64 bytes. Raises BadRequest without the library."""
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        except ImportError as error:
            raise BadRequest(f"NATS_CREDS_FILE needs the package cryptography ({error})") from error
        return base64.b64encode(Ed25519PrivateKey.from_private_bytes(self.seed).sign(nonce.encode()))


def _decode_seed(text: str, path: str) -> bytes:
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error as error:
        raise BadRequest(f"NATS_CREDS_FILE={path!r}: the seed is not base32") from error
    body, checksum = raw[:-2], int.from_bytes(raw[-2:], "little")
    if len(body) != 34 or binascii.crc_hqx(body, 0) != checksum:
        raise BadRequest(f"NATS_CREDS_FILE={path!r}: the seed is damaged (its checksum does not fit)")
    if int.from_bytes(body[:2], "big") != _USER_SEED:
        raise BadRequest(f"NATS_CREDS_FILE={path!r}: the seed is not a user's (those begin with SU)")
    return body[2:]
