"""Which paths are below a mount: never one that is not, and every one that is."""

import os
import posixpath
from collections.abc import Iterator
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asya_shim import Turn, paths
from asya_shim.hooks import HOOKS
from asya_shim.paths import MountPoint, locate
from support.state_proxy import Shim, State

SEGMENTS = st.one_of(
    st.sampled_from(["", ".", "..", "state-lww", "state-cas", "state", "a", "etc", "...", "..a", "a b", "é", "%2e%2e"]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=5),
)
NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..", b".asya")
)


@pytest.fixture(scope="class", params=[("lww",), ("lww", "cas")], ids=["alone", "together"])
def mounts(request: pytest.FixtureRequest, shim: Shim) -> None:
    shim.mount(*request.param)


@pytest.mark.usefixtures("mounts")
class TestLocate:
    @given(st.lists(SEGMENTS, max_size=7), st.booleans())
    @example(["state-lww", "..", "etc", "passwd"], True)
    @example(["", "state-lww", "a"], True)
    @example(["state-lww", "a", "..", "..", "state-cas", "x"], True)
    def test_agrees_with_normpath(self, segments: list[str], absolute: bool) -> None:
        text = ("/" if absolute else "") + "/".join(segments)
        where = posixpath.normpath(posixpath.join("/" if absolute else os.getcwd(), text))
        try:
            place = locate(text)
        except PermissionError:
            assert ".." in segments
            return
        under = next(
            (m for m in paths.mounts if text and ("/" + where.lstrip("/") + "/").startswith(m.under)),
            None,
        )
        if under is None:
            assert place is None
        else:
            assert place is not None
            assert place.mount is under
            assert place.path == "/" + where.lstrip("/")
            assert b".." not in place.key.split(b"/")
            assert locate(os.fsencode(text)).key == place.key  # type: ignore[union-attr]

    def test_what_is_no_path(self) -> None:
        for value in (None, 0, 3, True, 1.5, object(), [], ""):
            assert locate(value) is None

    def test_needle(self) -> None:
        assert paths.needle
        assert all(paths.needle in mount.root for mount in paths.mounts)

    def test_nul_is_a_value_error(self) -> None:
        with pytest.raises(ValueError, match="null byte"):
            locate("/state-lww/a\0b")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES)
@example(name=b"a%2Fb")
@example(name=b"\xff\xfe\n\t '\"?#&=;")
def test_every_legal_name_round_trips(name: bytes, lww: State) -> None:
    path = os.fsencode(lww.root) + b"/" + name
    with Turn():
        with open(path, "wb") as f:
            f.write(name)
        assert name in os.listdir(os.fsencode(lww.root))
        with open(os.fsdecode(path), "rb") as f:
            assert f.read() == name
        os.remove(path)
        assert not os.path.exists(path)


@pytest.fixture(params=["/state", "/data/state"])
def alone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The root of the only mount."""
    before = list(paths.mounts)
    paths.set_mounts([MountPoint("state", request.param, Mock(), 1)])
    yield request.param
    paths.set_mounts(before)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(segments=st.lists(st.sampled_from(["", ".", "..", "...", ".a", "data", "state", "x"]), max_size=6))
@example(segments=["data", ".", "state", "x"])
@example(segments=["data", "", "state", "x"])
@example(segments=["x", "..", "data", "state", "x"])
def test_a_path_that_is_plainly_elsewhere_is(alone: str, segments: list[str]) -> None:
    text = "/" + "/".join(segments)
    below = (posixpath.normpath("/" + text.lstrip("/")) + "/").startswith(alone + "/")
    for _ in range(2):
        if HOOKS.is_elsewhere(text):
            assert not below
        try:
            place = locate(text)
        except PermissionError:
            assert ".." in segments
        else:
            assert (place is not None) == below
    assert (text in HOOKS.elsewhere) <= (not below)
