"""Lines on the terminal: each with the name of who said it, coloured where a person is watching."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TextIO

# SGR codes of the names, in the order in which they first speak; none of them is red.
_COLOURS = ("36", "32", "35", "33", "34", "96", "92", "95")
_RED = "31"
OWN_NAME = "asya"


class Console:
    """Writes `name | line`, the names padded to `width`.

    Colours only on a terminal, and not where NO_COLOR is set (no-color.org). Where nobody can read it any more (a
    closed pipe or terminal, a full disk) it is silent, and calls `when_gone`, once.
    """

    def __init__(self, width: int = len(OWN_NAME), stream: TextIO | None = None) -> None:
        self.width = width
        self._stream: TextIO | None = stream if stream is not None else sys.stdout
        """None where the shell gave no standard output (`>&-`)."""
        self._colours: dict[str, str] = {}
        self._coloured = self._stream is not None and self._stream.isatty() and not os.environ.get("NO_COLOR")
        self.gone: OSError | None = None
        """Why nothing is written any more."""
        self.when_gone: Callable[[], None] = lambda: None

    def line(self, name: str, text: str, *, alarm: bool = False) -> None:
        """One line, written and flushed at once."""
        if self._stream is None or self.gone is not None:
            return
        label = f"{name:<{self.width}} |"
        if self._coloured:
            colour = _RED if alarm else self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
            label = f"\x1b[{colour}m{label}\x1b[0m"
        try:
            self._stream.write(f"{label} {text}\n" if text else f"{label}\n")
            self._stream.flush()
        except OSError as error:
            self.gone = error
            _into_nothing(self._stream)
            self.when_gone()

    def say(self, text: str, *, alarm: bool = False) -> None:
        """A line of our own."""
        self.line(OWN_NAME, text, alarm=alarm)


def _into_nothing(stream: TextIO) -> None:
    """Let what is still in the stream's buffer go, so that the interpreter's end does not fail on it again."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, stream.fileno())
    finally:
        os.close(nothing)
