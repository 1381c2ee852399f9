"""How a `stat_result` is built: by position where the interpreter takes it so, else by name, with the same outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from asya_shim import namespace
from asya_shim.paths import MountPoint, Place

if TYPE_CHECKING:
    from asya_shim.remote import Remote


def test_both_ways_give_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(MountPoint("state", "/state", cast("Remote", None), 7), b"a", "/state/a")
    found = []
    for in_order in (True, False):
        monkeypatch.setattr(namespace, "_IN_ORDER", in_order)
        found.append(namespace.file_status(place, 1025, 1_700_000_000_123_456_789, "v"))
    by_position, by_name = found
    names = [name for name in dir(by_name) if name.startswith("st_")]
    assert [getattr(by_position, name) for name in names] == [getattr(by_name, name) for name in names]
    assert tuple(by_position) == tuple(by_name)
    assert (by_name.st_size, by_name.st_blocks, by_name.st_dev) == (1025, 3, 7)
    assert (by_position.st_mtime_ns, by_position[8]) == (1_700_000_000_123_456_789, 1_700_000_000)
    assert by_position.st_mtime == pytest.approx(1_700_000_000.123)
