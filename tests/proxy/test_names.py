"""Every legal file name comes back as it went in, and no name leaves its prefix."""

from __future__ import annotations

from hypothesis import assume, example, given
from hypothesis import strategies as st

from asya_contract.wire import KEYS, encode_key
from asya_proxy.errors import StoreError
from asya_proxy.wire import Place, parse_target

SEGMENT = st.binary(min_size=1, max_size=60).map(lambda b: b.replace(b"/", b"_").replace(b"\0", b"_"))
KEY = st.lists(SEGMENT, min_size=1, max_size=4).map(b"/".join)


@given(key=KEY)
@example(key=b"%2F")
@example(key=b"a?b=c&d#e+f")
@example(key=b"\xff\n\r\t \x7f")
@example(key=b"asya/x")
def test_every_legal_name_round_trips(key: bytes) -> None:
    assume(len(encode_key(key)) <= 900)
    segments = key.split(b"/")
    assume(not {b".", b".."} & set(segments) and segments[0] != b".asya")
    target = parse_target(KEYS + encode_key(key))
    assert (target.place, target.key, target.query) == (Place.FILE, key, "")
    directory = parse_target(KEYS + encode_key(key) + "/?x=y")
    assert (directory.place, directory.key) == (Place.DIRECTORY, key + b"/")


@given(raw=st.text(alphabet="/.%2eEfF0aysA?\\:", max_size=24))
@example(raw="%2e%2e/other/actor/f")
@example(raw="a/%2E%2E/%2e%2e/b")
@example(raw="/etc/passwd")
@example(raw=".asya/promises")
@example(raw="%2Easya/promises")
@example(raw="..")
def test_no_target_leaves_its_prefix(raw: str) -> None:
    """A store puts its prefix before the key: what is accepted must not climb, nor reach our own records."""
    try:
        target = parse_target(KEYS + raw)
    except StoreError:
        return
    if target.place is Place.TOP:
        return
    key = target.key.removesuffix(b"/")
    segments = key.split(b"/")
    assert key
    assert b"\0" not in key
    assert not {b"", b".", b".."} & set(segments)
    assert segments[0] != b".asya"
