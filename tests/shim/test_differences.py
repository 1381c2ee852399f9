"""The table of differences from a disk: each row shown by a script in both worlds, or by the test that it names.

The rows are those of `docs/concepts/disk.md`, one for one. What the other suites leave out of their scripts is here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.documentation import DOCS
from support.state_proxy import INTERPRETERS, ROOT, Proxy
from support.worlds import Script, Worlds


@dataclass(frozen=True)
class Row:
    """A script, and in both worlds what its operations say; `real` and `state` name only those that differ."""

    script: Script
    real: dict[int, str]
    state: dict[int, str]
    left: tuple[dict[str, str], dict[str, str]] = field(default=({}, {}))
    """What is behind, on a disk and below a mount."""
    at_the_end: str = "None"
    """What closing a file that stayed open says below a mount."""


# By the first column of the documentation's table.
ROWS: dict[str, Row | str] = {
    "Parent directories": Row(
        [
            ["put", "a/b/c", "x"],
            ["stat", "a/b"],
            ["unlink", "a/b/c"],
            ["stat", "a/b"],
            ["rmdir", "a/b"],
            ["rmdir", "a"],
        ],
        dict.fromkeys((0, 2), "FileNotFoundError errno=2 'ROOT/a/b/c'")
        | dict.fromkeys((1, 3, 4), "FileNotFoundError errno=2 'ROOT/a/b'")
        | {5: "FileNotFoundError errno=2 'ROOT/a'"},
        {0: "1", 1: "'directory'", 2: "None", 3: "'directory'", 4: "None", 5: "FileNotFoundError errno=2 'ROOT/a'"},
    ),
    "When a write is stored": Row(
        [["put_in_a_dead_process", "a", "flushed"], ["listdir", "."]],
        {1: "['a']"},
        {1: "[]"},
        ({"a": "b'flushed'"}, {}),
    ),
    "`with open(...)` that raises": Row(
        [["abort", "a", "w", "half"], ["put", "b", "whole"], ["abort", "b", "w", "half"]],
        {},
        {},
        ({"a": "b'half'", "b": "b'half'"}, {"b": "b'whole'"}),
    ),
    "A handler that raises": "tests/shim/test_turns.py::test_discarded_files_are_closed",
    '`open(path, "w")` while others read': "tests/shim/test_tokens.py::test_a_turn_sees_only_what_is_committed",
    "Writes of other pods": "tests/shim/test_tokens.py::test_first_read_counts",
    "`flock`, `lockf`": Row(
        [["open", 0, "a", "w"], ["lock", 0]],
        {1: "None"},
        {1: "OSError errno=38 'ROOT/a'"},
        ({"a": "b''"}, {"a": "b''"}),
    ),
    "`os.link`, `os.symlink`, `os.mkfifo`, `os.mknod`": Row(
        [
            ["put", "a", "x"],
            ["link", "a", "b"],
            ["unlink", "b"],
            ["symlink", "a", "c"],
            ["unlink", "c"],
            ["mkfifo", "d"],
            ["unlink", "d"],
        ],
        dict.fromkeys((1, 2, 3, 4, 5, 6), "None"),
        {
            1: "PermissionError errno=1 'ROOT/a' 'ROOT/b'",
            2: "FileNotFoundError errno=2 'ROOT/b'",
            3: "PermissionError errno=1 'ROOT/a' 'ROOT/c'",
            4: "FileNotFoundError errno=2 'ROOT/c'",
            5: "PermissionError errno=1 'ROOT/d'",
            6: "FileNotFoundError errno=2 'ROOT/d'",
        },
        ({"a": "b'x'"}, {"a": "b'x'"}),
    ),
    "`chmod`": Row(
        [["put", "a", "x"], ["chmod", "a", 0o600], ["stat_in_another_process", "a"]],
        {2: "'0o600'"},
        {2: "'0o644'"},
        ({"a": "b'x'"}, {"a": "b'x'"}),
    ),
    "`touch`, `utime`": "tests/shim/test_descriptors.py::test_touch_is_a_metadata_change",
    "`/state/../x`": Row(
        [["stat", "../../../tmp"], ["stat", "../../../tmp/../tmp"]],
        {},
        dict.fromkeys((0, 1), "PermissionError errno=13"),
    ),
    "`x/..`": Row(
        [["put", "a", "x"], ["get", "no/../a"], ["get", "a/../a"]],
        {1: "FileNotFoundError errno=2 'ROOT/no/../a'", 2: "NotADirectoryError errno=20 'ROOT/a/../a'"},
        {1: "b'x'", 2: "b'x'"},
        ({"a": "b'x'"}, {"a": "b'x'"}),
    ),
    '`open(path, "w")` of a directory, below a file, or of a name that is too long': Row(
        [["stat", "d"], ["mkdir_in_another_process", "d"], ["open", 0, "d", "w"]],
        {2: "IsADirectoryError errno=21 'ROOT/d'"},
        {2: "('w', 0, False, True, True, False)"},
        ({"d": "directory"}, {"d": "directory"}),
        at_the_end="IsADirectoryError errno=21 'ROOT/d'",
    ),
    "The descriptor of a directory": Row(
        [
            ["mkdir", "d"],
            ["os_open", 0, "d", "RDONLY DIRECTORY"],
            ["os_read", 0, 1],
            ["os_listdir", 0],
            ["os_fstat", 0],
        ],
        {2: "IsADirectoryError errno=21"},
        {2: "OSError errno=9"},
        ({"d": "directory"}, {"d": "directory"}),
    ),
    "Extended attributes": Row(
        [
            ["mkdir", "d"],
            ["setxattr", "d", "k", "v"],
            ["put", "a", "x"],
            ["setxattr", "a", "k", "v"],
            ["getxattr", "a", "k"],
        ],
        {1: "None"},
        {1: "IsADirectoryError errno=21 'ROOT/d'"},
        ({"a": "b'x'", "d": "directory"}, {"a": "b'x'", "d": "directory"}),
    ),
    "Renaming a file": "tests/proxy/test_consistency.py::test_a_rename_by_copy_survives_lost_answers",
    "Renaming a directory": "tests/proxy/test_wire.py::test_renaming_directories",
    "Reading on in a file that was replaced": (
        "tests/shim/test_round_trips.py::test_large_files_are_read_by_ranges_of_one_version"
    ),
    "Writing before the end of a file that grows beyond `maxFileSize`": (
        "tests/shim/test_streaming.py::test_beyond_the_limit_seeking_back_raises"
    ),
    "`exists`, `isfile`, `walk`, `glob` during an outage": "tests/shim/test_outage.py::test_raises",
    "A full disk": "tests/contract/test_errors.py::test_a_builtin_name_is_what_python_makes_of_the_errno",
    "C libraries and other programs that open paths themselves, or are started with `cwd=` there": (
        "tests/shim/test_processes.py::test_what_gets_past_the_hooks_is_refused"
    ),
    "A writable `mmap` at `close()`": Row(
        [["put", "a", "x"], ["open", 0, "a", "r+b"], ["map_and_close", 0]],
        {2: "None"},
        {2: "OSError errno=16"},
        ({"a": "b'x'"}, {"a": "b'x'"}),
    ),
    "Names": Row(
        [["put", "n" * 300, "long"], ["get", "n" * 300], ["put", "n" * 950, "longer"]],
        {0: f"OSError errno=36 'ROOT/{'n' * 300}'", 1: f"OSError errno=36 'ROOT/{'n' * 300}'"},
        {0: "4", 1: "b'long'"},
        ({}, {"n" * 300: "b'long'"}),
    ),
    "Speed": "tests/shim/test_round_trips.py::test_reading",
}


def rows_of_the_documentation() -> list[str]:
    lines = (DOCS / "concepts/disk.md").read_text().splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1].strip() for line in lines if line.startswith("|")]
    return cells[2:]


def test_the_documentation_has_the_same_rows() -> None:
    assert rows_of_the_documentation() == list(ROWS)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if isinstance(row, str)])
def test_others_are_shown_by_a_test(name: str) -> None:
    where = ROWS[name]
    assert isinstance(where, str)
    page, _, test = where.partition("::")
    assert re.search(rf"def {test}\(", (ROOT / page).read_text()), where


@pytest.fixture(scope="module", params=INTERPRETERS)
def worlds(request: pytest.FixtureRequest, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    directory: Path = tmp_path_factory.mktemp("worlds")
    with Worlds(request.param, proxy, directory) as worlds:
        yield worlds


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if isinstance(row, Row)])
def test_a_row(worlds: Worlds, name: str) -> None:
    row = ROWS[name]
    assert isinstance(row, Row)
    ran = worlds.run(row.script, as_turn=False, everything=True)
    for number, (real, state) in enumerate(ran["outcomes"]):
        if number in row.real:
            assert real == row.real[number]
        if number not in row.state:
            assert state == real
        elif state != row.state[number]:
            assert state.startswith(row.state[number] + " "), (state, row.state[number])
    assert ran["trees"] == list(row.left)
    assert {state for _, state in ran["closed"]} <= {"None", row.at_the_end}
    if row.at_the_end != "None":
        assert row.at_the_end in {state for _, state in ran["closed"]}
