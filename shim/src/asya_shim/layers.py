"""Buffers and text over a handle, as `open` stacks them, and how to find the handle below a stack.

The classes of the standard library, subclassed for two things only: leaving a `with` block by an
exception abandons the file instead of storing half of it, and a file collected without `close()` is
stored all the same, its failure kept.
"""

from __future__ import annotations

import io
from _weakref import ref

from asya_shim.handles import RawFile, leave

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Tuple


def collect(outer: Any) -> None:
    """Close a buffer or text layer that was collected while open; a failure is kept for the end of its scope."""
    try:
        if outer.closed:
            return
    except ValueError:
        return  # never finished its construction, or detached
    raw = _raw(outer)
    if raw is None:
        return
    try:
        outer.close()
    except Exception as error:
        from asya_shim.endings import lose

        lose(raw.scope, error)


def _raw(file: Any) -> Optional[RawFile]:
    """The bottom of a stack of `io` objects; None where it is not ours any more."""
    try:
        below = getattr(file, "buffer", None)
        below = getattr(below if below is not None else file, "raw", below)
    except ValueError:
        return None
    return below if isinstance(below, RawFile) else None


_BELOW = ("buffer", "raw", "fileobj", "myfileobj", "_fp", "fp")


def below(file: Any) -> Optional[RawFile]:
    """The state file that a stack of `io` objects, compressors or archives stands on, if it stands on one."""
    for _ in range(8):
        if isinstance(file, RawFile):
            return file
        for name in _BELOW:
            try:
                lower = getattr(file, name, None)
            except Exception:
                lower = None  # detached, or somebody's property that fails
            if lower is not None:
                file = lower
                break
        else:
            return None
    return None


class BufferedWriter(io.BufferedWriter):
    """`io.BufferedWriter` over a state file."""

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        if error is None:
            self.close()
        else:
            _leave(self, error)

    def __del__(self) -> None:
        collect(self)


class BufferedRandom(io.BufferedRandom):
    """`io.BufferedRandom` over a state file."""

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        if error is None:
            self.close()
        else:
            _leave(self, error)

    def __del__(self) -> None:
        collect(self)


_TextIOWrapper = io.TextIOWrapper
"""The interpreter's own; `io` has a stand-in for it while the hooks are installed."""


class TextIOWrapper(io.TextIOWrapper):
    """`io.TextIOWrapper` over a state file."""

    mode: str

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        if error is None:
            self.close()
        else:
            _leave(self, error)

    def __del__(self) -> None:
        collect(self)


def _leave(outer: Any, error: BaseException) -> None:
    raw = below(outer)
    if raw is None:
        outer.close()
    else:
        leave(outer, raw, error)


def dress_bytes(raw: RawFile, parsed: Tuple[str, bool, bool], size: int = io.DEFAULT_BUFFER_SIZE) -> Any:
    """A buffer over `raw`, as `open` puts it there for a binary mode."""
    buffer: Any
    try:
        if parsed[1]:
            buffer = BufferedRandom(raw, size)
        elif parsed[0] == "r":
            return io.BufferedReader(raw, size)
        else:
            buffer = BufferedWriter(raw, size)
    except BaseException:
        raw.abandon()
        raw.close()
        raise
    raw._outer = ref(buffer)
    return buffer


def dress(
    raw: RawFile,
    parsed: Tuple[str, bool, bool],
    mode: str,
    buffering: int,
    encoding: Optional[str],
    errors: Optional[str],
    newline: Optional[str],
) -> Any:
    """Buffer and text layer over `raw`, as `open` stacks them."""
    letter, plus, binary = parsed
    if buffering == 0:
        return raw
    try:
        if binary and buffering == 1:
            import warnings

            warnings.warn(
                "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used",
                RuntimeWarning,
                stacklevel=3,
            )
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        buffer = dress_bytes(raw, parsed, size)
        if binary:
            return buffer
        # What only reads has nothing to abandon.
        layer = _TextIOWrapper if letter == "r" and not plus else TextIOWrapper
        text: Any = raw.without_descriptor(layer, buffer, encoding, errors, newline, buffering == 1)
    except BaseException:
        raw.abandon()
        raw.close()
        raise
    text.mode = mode
    raw.set_outer(text)
    return text
