"""Certificates over the years, with a moved clock: nobody who trusts the bundle ever meets a stranger."""

import asyncio
import contextlib
import datetime
from itertools import pairwise

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry, Gauge

from asya_operator.certificates import (
    CA_LIFE,
    LEAF_LIFE,
    OVERLAP,
    RENEW_BEFORE,
    BadSecret,
    Held,
    Pair,
    from_secret,
    issue,
    new_authority,
)
from asya_operator.rotation import rotate
from asya_operator.settings import CertificateSettings

NAMES = ("asya-webhook.asya.svc", "asya-webhook.asya.svc.cluster.local")
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
CHECK = datetime.timedelta(hours=12)


def verifies(bundle: bytes, leaf: Pair, now: datetime.datetime) -> bool:
    """As a TLS client with `bundle` as its roots sees `leaf`."""
    store = x509.verification.Store(x509.load_pem_x509_certificates(bundle))
    verifier = x509.verification.PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(NAMES[0]))
    try:
        verifier.verify(leaf.parsed, [])
    except x509.verification.VerificationError:
        return False
    return True


def test_the_first_certificate_serves_at_once():
    held = issue(Held(), START, NAMES)
    assert len(held.authorities) == 1
    assert verifies(held.bundle(), held.leaf, START)
    assert held.leaf.ends() - START == LEAF_LIFE


def test_nothing_due_changes_nothing():
    held = issue(Held(), START, NAMES)
    assert issue(held, START + CHECK, NAMES) == held


def test_the_leaf_is_renewed_in_time_by_the_same_authority():
    held = issue(Held(), START, NAMES)
    later = held.leaf.ends() - RENEW_BEFORE + CHECK
    renewed = issue(held, later, NAMES)
    assert renewed.leaf != held.leaf
    assert renewed.authorities == held.authorities
    assert verifies(held.bundle(), renewed.leaf, later)


def test_other_names_need_another_leaf():
    held = issue(Held(), START, NAMES)
    assert issue(held, START, ("other.svc",)).leaf != held.leaf


def test_a_new_authority_is_trusted_before_it_signs_and_the_old_one_after():
    held = issue(Held(), START, NAMES)
    due = START + CA_LIFE - RENEW_BEFORE + CHECK
    first = issue(issue(held, due - OVERLAP, NAMES), due, NAMES)
    assert len(first.authorities) == 2
    assert first.leaf.parsed.issuer == first.authorities[0].parsed.subject
    second = issue(first, due + OVERLAP, NAMES)
    assert second.leaf.parsed.issuer == second.authorities[-1].parsed.subject
    assert second.authorities == first.authorities
    third = issue(second, due + 2 * OVERLAP, NAMES)
    assert third.authorities == first.authorities[-1:]
    assert third.leaf == second.leaf


def test_thirty_years_of_checks():
    """Each certificate verifies against the bundle of the check before and of the one after: caBundle, Secret and
    webhook pods may each lag a whole check behind."""
    now, seen = START, []
    while now < START + datetime.timedelta(days=365 * 21):
        seen.append((now, issue(seen[-1][1] if seen else Held(), now, NAMES)))
        now += CHECK if any(abs(now - at) < datetime.timedelta(days=3) for at in _events(seen)) else 20 * CHECK
    for (_, before), (now, after) in pairwise(seen):
        assert verifies(before.bundle(), after.leaf, now)
        assert verifies(after.bundle(), before.leaf, now)
        assert len(after.authorities) <= 2
    assert len({held.authorities[-1].cert for _, held in seen}) >= 3


def _events(seen):
    """When something changed lately: there the steps are as small as in real life."""
    return [now for (_, a), (now, b) in pairwise(seen[-12:]) if a != b]


def test_after_a_long_sleep_everything_is_new():
    held = issue(Held(), START, NAMES)
    awake = issue(held, START + CA_LIFE + CHECK, NAMES)
    assert len(awake.authorities) == 1
    assert verifies(awake.bundle(), awake.leaf, START + CA_LIFE + CHECK)


def test_the_secret_holds_everything():
    held = issue(Held(), START, NAMES)
    rotating = issue(held, START + CA_LIFE - RENEW_BEFORE + CHECK, NAMES)
    assert len(rotating.authorities) == 2
    assert from_secret(rotating.to_secret()) == rotating
    assert from_secret({}) == Held()


def test_a_damaged_secret_is_named():
    data = issue(Held(), START, NAMES).to_secret()
    with pytest.raises(BadSecret, match=r"1 certificates and ca\.key 0 keys"):
        from_secret({**data, "ca.key": b""})
    with pytest.raises(BadSecret, match="tls: "):
        from_secret({**data, "tls.crt": b"x"})
    with pytest.raises(BadSecret, match="do not belong together"):
        from_secret({**data, "tls.key": new_authority(START).key})
    with pytest.raises(BadSecret, match=r"ca\.crt has 0 certificates"):
        from_secret({"tls.crt": b"", "tls.key": b""})


def test_an_authority_can_sign_servers_and_nothing_below():
    authority = new_authority(START).parsed
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)


class EmptyCluster:
    """An API server that has nothing, and takes everything."""

    async def get(self, *_):
        return None

    async def apply(self, *_, **__):
        return None


async def test_the_end_of_what_was_issued_is_told():
    settings = {"namespace": "n", "secretName": "s", "serviceName": "w", "webhookConfiguration": "c"}
    expiry = Gauge("expiry", "", registry=CollectorRegistry())
    rotation = asyncio.create_task(rotate(EmptyCluster(), CertificateSettings.model_validate(settings), expiry))
    wanted = datetime.datetime.now(datetime.UTC) + LEAF_LIFE
    async with asyncio.timeout(10):
        while not expiry._value.get():
            await asyncio.sleep(0.01)
    assert abs(expiry._value.get() - wanted.timestamp()) < 3600
    rotation.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await rotation
