"""One interpreter that does file operations in a real directory and below a mount, and tells what it saw in both."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from support.state_proxy import INTERPRETERS, PROGRAMS, Proxy, child_environ

Operation = Sequence[Any]
Script = Sequence[Operation]

# Of `open` and, by name, of `os.open`.
MODES = ("r", "w", "x", "a", "r+", "w+", "x+", "a+", "rb", "wb", "xb", "ab", "r+b", "w+b", "x+b", "a+b")
FLAGS = (
    "RDONLY",
    "WRONLY",
    "RDWR",
    "RDWR CREAT",
    "WRONLY CREAT",
    "RDWR CREAT EXCL",
    "WRONLY TRUNC",
    "RDWR CREAT TRUNC",
    "WRONLY APPEND",
    "RDWR CREAT APPEND",
    "RDONLY DIRECTORY",
    "RDONLY CREAT",
)

_serial = itertools.count()


class Worlds:
    """A child that stays alive from script to script; it has the shim and nothing else of this process's."""

    def __init__(
        self,
        python: str,
        proxy: Proxy,
        directory: Path,
        *,
        environ: dict[str, str] | None = None,
        below: str = "",
        before: Sequence[str] = (),
    ) -> None:
        """`below`: another mount path than the proxy's, as `environ` has it; `before`: what runs the program."""
        self.python = python
        self.name = f"Python {python}, {proxy.consistency}"
        self.root = directory / f"{proxy.consistency}-{python}"
        self._errors = open(directory / f"{proxy.consistency}-{python}.err", "w+")  # noqa: SIM115
        state = f"{below or proxy.mount.path}/worlds-{next(_serial)}-{python}"
        self._process = subprocess.Popen(
            [INTERPRETERS[python], *before, str(PROGRAMS / "operations.py"), str(self.root), state],
            env=environ or child_environ() | proxy.environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, command: dict[str, Any]) -> Any:
        """One command of `operations.py`, and its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._errors.seek(0)
            raise AssertionError(f"the child has ended: {self._errors.read()}")
        return json.loads(answer)

    def begin(self, as_turn: bool) -> None:
        """Two new directories."""
        self.ask({"begin": f"w{next(_serial)}", "turn": as_turn})

    def end(self) -> dict[str, Any]:
        """Close what is open in both; what that did, and what is there."""
        ended: dict[str, Any] = self.ask({"end": True})
        return ended

    def run(self, script: Script, as_turn: bool, everything: bool = False) -> dict[str, Any]:
        """A whole script in directories of its own: `outcomes`, `closed` and `trees`, each real and state."""
        name = f"w{next(_serial)}"
        ran: dict[str, Any] = self.ask(
            {"begin": name, "turn": as_turn, "do": script, "end": True, "everything": everything}
        )
        return ran

    def close(self) -> None:
        """End the child; what it wrote to standard error is a failure."""
        assert self._process.stdin is not None
        with self._process, self._errors:
            self._process.stdin.close()
            assert self._process.wait(20) == 0
            self._errors.seek(0)
            text = self._errors.read()
        assert not text, text

    def __enter__(self) -> Worlds:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def differences(script: Script, ran: dict[str, Any]) -> list[str]:
    """What a script did otherwise below the mount, in words."""
    found = []
    for operation, outcome in zip(script, ran["outcomes"] or [], strict=True):
        if outcome and outcome[0] != outcome[1]:
            found.append(f"{operation}: on a disk {outcome[0]}, below a mount {outcome[1]}")
    for real, state in ran["closed"]:
        if real != state:
            found.append(f"at the end: on a disk {real}, below a mount {state}")
    real, state = ran["trees"]
    if real != state:
        found.append(f"left behind: on a disk {real}, below a mount {state}")
    return found
