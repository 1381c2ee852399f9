"""Keys on the wire: every legal file name round-trips, and no name leaves its mount."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asya_contract import wire

segments = st.binary(min_size=1, max_size=40).map(lambda b: b.replace(b"/", b"_").replace(b"\0", b"_"))
paths = st.lists(segments, min_size=1, max_size=5).map(b"/".join)


@given(st.binary(max_size=300))
def test_encoding_is_reversible_for_any_bytes(key):
    assert wire.decode_key(wire.encode_key(key)) == key


@given(st.binary(max_size=300))
def test_an_encoded_key_is_fit_for_a_request_target_and_for_json(key):
    allowed = set(string.ascii_letters + string.digits + "/-_.~%")
    assert set(wire.encode_key(key)) <= allowed


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_two_keys_never_share_an_encoding(one, other):
    assert (wire.encode_key(one) == wire.encode_key(other)) == (one == other)


@given(st.binary(max_size=400))
def test_what_check_key_lets_pass_stays_below_its_prefix(key):
    """Whatever the bytes: accepted keys have no segment that a path walk could leave by."""
    try:
        accepted = wire.check_key(key)
    except wire.BadKey:
        return
    assert accepted == key
    parts = key.split(b"/")
    assert not {b"", b".", b".."} & set(parts)
    assert b"\0" not in key
    assert parts[0] != b".asya"
    assert len(wire.encode_key(key)) <= wire.MAX_ENCODED_KEY


@given(paths)
def test_ordinary_names_are_let_pass(key):
    bad = any(part in (b".", b"..") for part in key.split(b"/")) or key.split(b"/")[0] == b".asya"
    if bad or len(wire.encode_key(key)) > wire.MAX_ENCODED_KEY:
        with pytest.raises(wire.BadKey):
            wire.check_key(key)
    else:
        assert wire.check_key(key) == key


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (b"", "empty"),
        (b"/a", "empty segment"),
        (b"a/", "empty segment"),
        (b"a//b", "empty segment"),
        (b"a/./b", r"'\.' segment"),
        (b"../a", r"'\.\.' segment"),
        (b"a/..", r"'\.\.' segment"),
        (b"a\0b", "NUL"),
        (b".asya", "reserved"),
        (b".asya/log", "reserved"),
    ],
)
def test_bad_keys_say_why(key, reason):
    with pytest.raises(wire.BadKey, match=reason):
        wire.check_key(key)


@pytest.mark.parametrize(
    "key", [b".asyab", b"a/.asya", b"...", b".hidden", b"a b", b"%2F", b"\xff\xfe", "ü/ß".encode()]
)
def test_names_that_only_look_bad_are_let_pass(key):
    assert wire.check_key(key) == key


def test_the_limit_counts_encoded_bytes():
    assert wire.check_key(b"a" * 900)
    assert wire.check_key(b"\xff" * 300)
    for key in (b"a" * 901, b"\xff" * 301):
        with pytest.raises(wire.KeyTooLong):
            wire.check_key(key)


@given(st.text(string.ascii_letters + string.digits + "-_:.", min_size=1, max_size=40))
def test_etags_round_trip(version):
    assert wire.unquote_etag(wire.quote_etag(version)) == version
    assert wire.unquote_etag(f" {wire.quote_etag(version)} ") == version
