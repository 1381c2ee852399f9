"""Operations on files do below a mount what they do on a disk: every one on whatever a name stands for, and at random.

`make test` runs a part of the scripts on every interpreter, and a short walk of the state machine; `make soak` all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from support.campaign import say
from support.file_machine import Files
from support.file_scripts import SEEDS, on_one, on_two
from support.state_proxy import INTERPRETERS, Proxy
from support.worlds import Worlds, differences

SCRIPTS = [*on_one(), *on_two()]
SHARE = 40
"""One script of so many runs in `make test` on each interpreter, each time others."""


@pytest.fixture(scope="module", params=INTERPRETERS)
def worlds(request: pytest.FixtureRequest, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    with Worlds(request.param, proxy, tmp_path_factory.mktemp("worlds")) as worlds:
        yield worlds


def run(worlds: Worlds, scripts: list[tuple[str, str, list[object]]], as_turn: bool) -> None:
    found = []
    for operation, situation, script in scripts:
        told = differences(script, worlds.run(script, as_turn))  # type: ignore[arg-type]
        if told:
            found.append("\n  ".join([f"{operation}, {situation}:", *told[:5]]))
    assert not found, f"{len(found)} of {len(scripts)} scripts:\n" + "\n".join(found[:20])


@pytest.mark.parametrize("as_turn", [False, True], ids=["outside turns", "a turn"])
def test_some_scripts(worlds: Worlds, as_turn: bool) -> None:
    offset = (list(INTERPRETERS).index(worlds.python) * 2 + as_turn) % SHARE
    run(worlds, SCRIPTS[offset::SHARE], as_turn)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SEEDS)
def test_found_before(worlds: Worlds, name: str) -> None:
    """What once was otherwise than on a disk."""
    for as_turn in (False, True):
        assert differences(SEEDS[name], worlds.run(SEEDS[name], as_turn)) == []


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("as_turn", [False, True], ids=["outside turns", "a turn"])
def test_every_script(worlds: Worlds, as_turn: bool) -> None:
    run(worlds, SCRIPTS, as_turn)  # type: ignore[arg-type]
    say(f"{worlds.name}: {len(SCRIPTS)} scripts agree with a disk")


def walk(worlds: Worlds, examples: int, steps: int, derandomize: bool) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Files(worlds),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_state_machine(worlds: Worlds) -> None:
    walk(worlds, 12, 25, derandomize=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_state_machine_for_long(worlds: Worlds) -> None:
    examples = int(os.environ.get("ASYA_SOAK_EXAMPLES", "1500"))
    walk(worlds, examples, 50, derandomize=False)
    say(f"{worlds.name}: {examples} walks of up to 50 operations agree with a disk")


def test_a_difference_would_be_seen(worlds: Worlds, tmp_path: Path) -> None:
    """The comparison can fail: parents are implicit below a mount, which a script that leaves nothing out shows."""
    script = [["put", "a/b", "x"]]
    assert differences(script, worlds.run(script, as_turn=False)) == []
    told = differences(script, worlds.run(script, as_turn=False, everything=True))
    assert "FileNotFoundError" in told[0]
    assert "left behind" in told[1]
