"""The environment table: what is written is read back, and what is wrong is named."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asya_contract.env import (
    EnvError,
    Mount,
    ProxyEnv,
    RuntimeEnv,
    ShimEnv,
    Var,
    format_mounts,
    parse_mounts,
    parse_seconds,
    parse_size,
    variables,
)

CLASSES = (ProxyEnv, RuntimeEnv, ShimEnv)
KINDS = {"str", "bool", "int", "seconds", "size", "enum", "json"}
LEAST_PROXY = {"STATE_BACKEND": "memory", "STATE_BUCKET": "b"}

# An environment variable holds any text without NUL; surrogates never leave a str of ours.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


def values_of(spec: Var) -> st.SearchStrategy:
    """Values a field of this kind may hold, as `to_env` gets them."""
    least = 0 if spec.minimum is None else spec.minimum
    return {
        "str": texts,
        "bool": st.booleans(),
        "int": st.integers(min_value=int(least), max_value=10**9),
        "seconds": st.integers(min_value=1, max_value=10**9).map(lambda n: n / 100),
        "size": st.integers(min_value=int(least), max_value=2**40),
        "enum": st.sampled_from(spec.choices or ("",)),
        "json": st.lists(st.dictionaries(texts, texts, max_size=3), max_size=3),
    }[spec.kind]


@st.composite
def environments(draw, cls):
    specs = variables(cls)
    return cls(
        **{name: draw(values_of(spec)) for name, spec in specs.items() if draw(st.booleans()) or required(cls, name)}
    )


def required(cls, name):
    return next(f for f in dataclasses.fields(cls) if f.name == name).default is dataclasses.MISSING


@pytest.mark.parametrize("cls", CLASSES)
def test_what_is_written_is_read_back(cls):
    @given(environments(cls))
    def check(value):
        assert cls.from_env(value.to_env()) == value

    check()


@pytest.mark.parametrize("cls", CLASSES)
def test_only_what_differs_from_the_default_is_written(cls):
    needed = {name: "memory" if name == "backend" else "x" for name in variables(cls) if required(cls, name)}
    assert set(cls(**needed).to_env()) == {variables(cls)[name].name for name in needed}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_field_is_a_variable_with_kind_and_meaning(cls):
    specs = variables(cls)
    assert set(specs) == {f.name for f in dataclasses.fields(cls)}
    assert len({spec.name for spec in specs.values()}) == len(specs)
    for spec in specs.values():
        assert spec.kind in KINDS
        assert spec.meaning
        assert bool(spec.choices) == (spec.kind == "enum")


@pytest.mark.parametrize("cls", CLASSES)
def test_defaults_pass_their_own_checks(cls):
    """A default that `from_env` would refuse could never be set to what it is."""
    for f in dataclasses.fields(cls):
        spec = f.metadata["var"]
        if f.default is dataclasses.MISSING:
            continue
        if spec.kind == "enum":
            assert f.default in spec.choices
        if spec.minimum is not None:
            assert f.default >= spec.minimum


def test_an_empty_variable_counts_as_absent():
    assert ProxyEnv.from_env({**LEAST_PROXY, "STATE_LOG_LEVEL": ""}).log_level == "info"
    with pytest.raises(EnvError, match="STATE_BUCKET is not set"):
        ProxyEnv.from_env({"STATE_BACKEND": "memory", "STATE_BUCKET": ""})


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("STATE_BACKEND", "S3", "one of s3, gcs, redis, nats, sqlite, memory"),
        ("STATE_CONSISTENCY", "strong", "one of lww, cas"),
        ("STATE_READ_ONLY", "yes", "one of true, false, 1, 0"),
        ("STATE_MAX_IN_FLIGHT", "0", "a whole number, at least 1"),
        ("STATE_MAX_IN_FLIGHT", "many", "a whole number"),
        ("STATE_REQUEST_TIMEOUT", "5 minutes", "a duration such as 30s, 5m or 250ms"),
        ("STATE_ATTEMPT_TIMEOUT", "0", "at least 0.01"),
        ("STATE_MAX_BUFFERED", "64MB", "a size such as 1048576, 64Mi or 1G"),
        ("STATE_MOUNTS", "[", "JSON"),
    ],
)
def test_a_bad_value_is_refused_with_name_value_and_allowed_set(name, value, allowed):
    with pytest.raises(EnvError) as caught:
        ProxyEnv.from_env({**LEAST_PROXY, name: value})
    message = str(caught.value)
    assert name in message
    assert repr(value) in message
    assert allowed in message


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(EnvError, match=r"STATE_CONSISTENCI .*did you mean STATE_CONSISTENCY\?"):
        ProxyEnv.from_env({**LEAST_PROXY, "STATE_CONSISTENCI": "cas"})
    with pytest.raises(EnvError, match=r"STATE_ZZZZ .*known are .*STATE_ACTOR"):
        ProxyEnv.from_env({**LEAST_PROXY, "STATE_ZZZZ": "1"})


@pytest.mark.parametrize(
    "name",
    [
        "STATE_SERVICE_HOST",
        "STATE_STORE_SERVICE_HOST",
        "STATE_STORE_SERVICE_PORT",
        "STATE_STORE_SERVICE_PORT_HTTP",
        "STATE_STORE_PORT",
        "STATE_STORE_PORT_80_TCP_ADDR",
    ],
)
def test_variables_of_service_links_are_let_pass(name):
    ProxyEnv.from_env({**LEAST_PROXY, name: "10.0.0.1"})


def test_names_of_other_prefixes_are_let_pass():
    assert ProxyEnv.from_env({**LEAST_PROXY, "AWS_REGION": "eu-west-1", "STATELY": "1"}).backend == "memory"


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("30s", 30.0), ("5m", 300.0), ("250ms", 0.25), ("1h", 3600.0), ("1.5s", 1.5)]
)
def test_durations(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 s", "1d", "1S", "1e3", "٣s", "1s\n"])
def test_bad_durations(text):
    with pytest.raises(ValueError):  # noqa: PT011 -- the caller words the message
        parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1048576", 2**20), ("64Mi", 2**26), ("1k", 1000), ("1G", 10**9), ("1.5Ki", 1536)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "Mi", "-1", "64MB", "1K", "1 Mi", "0x10"])
def test_bad_sizes(text):
    with pytest.raises(ValueError):  # noqa: PT011 -- the caller words the message
        parse_size(text)


def test_mounts_as_upstream_writes_them():
    assert parse_mounts("state:/state:write=buffered") == [Mount("state", "/state", (("write", "buffered"),))]
    assert parse_mounts("a:/x;b:/y/z:ro=1,write=buffered") == [
        Mount("a", "/x", ()),
        Mount("b", "/y/z", (("ro", "1"), ("write", "buffered"))),
    ]
    assert parse_mounts("") == []


mount_names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
words = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)


@given(st.lists(st.tuples(mount_names, words, st.lists(st.tuples(words, words), max_size=2)), max_size=4))
def test_mounts_round_trip(rows):
    unique = {name: (word, options) for name, word, options in rows}
    # A number before each path keeps them from being equal.
    mounts = [
        Mount(name, f"/{n}/{word}", tuple(options)) for n, (name, (word, options)) in enumerate(sorted(unique.items()))
    ]
    assert parse_mounts(format_mounts(mounts)) == mounts


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("state", "expected name:/path"),
        ("State:/state", "expected name:/path"),
        ("state\n:/state", "expected name:/path"),
        ("state:state", "must be absolute"),
        ("state:/", "must be absolute"),
        ("state:/a/../b", "must be absolute and normalised"),
        ("state:/a//b", "must be absolute and normalised"),
        ("state:/a/", "must be absolute and normalised"),
        ("a:/x;a:/y", "'a' is there twice"),
        ("a:/x;b:/x", "overlap"),
        ("a:/x;b:/x/y", "overlap"),
        ("a:/x/y;b:/x", "overlap"),
        ("a:/x:write", "'write' is not key=value"),
    ],
)
def test_bad_mounts_are_refused(text, reason):
    with pytest.raises(EnvError, match=reason):
        parse_mounts(text)


def test_paths_that_share_letters_do_not_overlap():
    assert [m.path for m in parse_mounts("a:/state;b:/state2")] == ["/state", "/state2"]
