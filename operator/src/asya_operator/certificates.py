"""`issue(held, now, names) -> Held`: the webhook's certificates, and their rotation; pure but for randomness.

The Secret is the truth and holds everything: all authorities that are trusted, their keys, and the
serving certificate. A new authority is trusted for OVERLAP before anything is signed by it, and an old
one for OVERLAP after the last that it signed was replaced, so that no reader of caBundle ever meets a
certificate it does not know.
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = datetime.timedelta(days=3650)
LEAF_LIFE = datetime.timedelta(days=365)
RENEW_BEFORE = datetime.timedelta(days=90)
OVERLAP = datetime.timedelta(days=1)
# Clocks of API servers may be behind ours.
BACKDATE = datetime.timedelta(minutes=10)

_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----\n?", re.DOTALL)


class BadSecret(ValueError):
    """A Secret that does not hold what `to_secret` writes; the message says what is wrong."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    cert: bytes
    key: bytes

    @property
    def parsed(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.cert)

    def ends(self) -> datetime.datetime:
        return self.parsed.not_valid_after_utc

    def began(self) -> datetime.datetime:
        """When it was made."""
        return self.parsed.not_valid_before_utc + BACKDATE


@dataclass(frozen=True)
class Held:
    """What the Secret holds: authorities, the oldest first, and the serving certificate."""

    authorities: tuple[Pair, ...] = ()
    leaf: Pair | None = None

    def bundle(self) -> bytes:
        """The trusted authorities, for caBundle."""
        return b"".join(authority.cert for authority in self.authorities)

    def to_secret(self) -> dict[str, bytes]:
        """`data` of the Secret, not yet base64."""
        assert self.leaf is not None
        return {
            "tls.crt": self.leaf.cert,
            "tls.key": self.leaf.key,
            "ca.crt": self.bundle(),
            "ca.key": b"".join(authority.key for authority in self.authorities),
        }


def from_secret(data: Mapping[str, bytes]) -> Held:
    """The inverse of `to_secret`; an empty Secret is an empty Held.

    Raises:
        BadSecret: something is missing, is no PEM, or does not belong together.
    """
    if not data:
        return Held()
    certs = [match.group(0) for match in _PEM.finditer(data.get("ca.crt", b""))]
    keys = [match.group(0) for match in _PEM.finditer(data.get("ca.key", b""))]
    if len(certs) != len(keys) or not certs:
        raise BadSecret(f"ca.crt has {len(certs)} certificates and ca.key {len(keys)} keys")
    pairs = [Pair(cert, key) for cert, key in zip(certs, keys, strict=True)]
    leaf = Pair(data.get("tls.crt", b""), data.get("tls.key", b""))
    for name, pair in [*(("ca", pair) for pair in pairs), ("tls", leaf)]:
        try:
            key = serialization.load_pem_private_key(pair.key, None)
            matches = pair.parsed.public_key() == key.public_key()
        except (ValueError, TypeError) as error:
            raise BadSecret(f"{name}: {error}") from None
        if not matches:
            raise BadSecret(f"{name}: certificate and key do not belong together")
    return Held(tuple(pairs), leaf)


def issue(held: Held, now: datetime.datetime, names: Sequence[str]) -> Held:
    """What should be held from `now` on for a server known by `names`; equal to `held` where nothing is due.

    Call it often (hours), each time with what the last call gave.
    """
    authorities = tuple(a for a in held.authorities if a.ends() > now)
    if not authorities or authorities[-1].ends() - now < RENEW_BEFORE:
        authorities = (*authorities, new_authority(now))
    signer = _signer(authorities, now)
    leaf = held.leaf
    if leaf is None or not _usable(leaf, signer, now, names):
        leaf = new_leaf(signer, now, names)
    return replace(held, authorities=_trusted(authorities, signer, leaf, now), leaf=leaf)


def _signer(authorities: Sequence[Pair], now: datetime.datetime) -> Pair:
    """The newest that has been trusted long enough; the oldest where none has."""
    settled = [a for a in authorities if a.began() + OVERLAP <= now]
    return settled[-1] if settled else authorities[0]


def _usable(leaf: Pair, signer: Pair, now: datetime.datetime, names: Sequence[str]) -> bool:
    if leaf.ends() - now < RENEW_BEFORE:
        return False
    try:
        leaf.parsed.verify_directly_issued_by(signer.parsed)
    except (ValueError, TypeError, InvalidSignature):
        return False
    san = leaf.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return list(san.get_values_for_type(x509.DNSName)) == list(names)


def _trusted(authorities: Sequence[Pair], signer: Pair, leaf: Pair, now: datetime.datetime) -> tuple[Pair, ...]:
    """Those still needed: the signer, newer ones, and older ones until the leaf has been there for OVERLAP."""
    place = list(authorities).index(signer)
    if leaf.began() + OVERLAP <= now:
        return tuple(authorities[place:])
    return tuple(authorities)


def _key() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key, pem


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def new_authority(now: datetime.datetime) -> Pair:
    """A self-signed authority that may sign serving certificates and nothing else."""
    key, pem = _key()
    serial = x509.random_serial_number()
    # The serial in the name keeps two authorities in one bundle apart.
    name = _name(f"asya-webhook-ca-{serial:x}"[:64])
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(cert.public_bytes(serialization.Encoding.PEM), pem)


def new_leaf(authority: Pair, now: datetime.datetime, names: Sequence[str]) -> Pair:
    """A serving certificate for `names`, which does not outlive its authority."""
    signing = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    key, pem = _key()
    parent = authority.parsed
    cert = (
        x509.CertificateBuilder()
        .subject_name(_name(names[0][:64]))
        .issuer_name(parent.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(now + LEAF_LIFE, authority.ends()))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .sign(signing, hashes.SHA256())
    )
    return Pair(cert.public_bytes(serialization.Encoding.PEM), pem)


def _usage(sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
