"""PyTorch: what it writes or maps by path in C++ gets an open file; what it reads, it reads by `open`."""

from __future__ import annotations

import functools

from asya_shim.adapters.by_path import by_descriptor, by_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict

    from asya_shim.adapters.by_path import Rows


def _load(real: Callable[..., Any]) -> Any:
    mapped = by_descriptor(real)

    @functools.wraps(real)
    def load(*args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("mmap"):
            return real(*args, **kwargs)
        return mapped(*(args or (kwargs.pop("f"),)), **kwargs)

    return load


ROWS: Dict[str, Rows] = {
    "torch.jit._serialization": (("save", by_object(1, "f", "wb")), ("load", by_object(0, "f", "rb"))),
    "torch.serialization": (("save", by_object(1, "f", "wb")), ("load", _load)),
}
