"""scipy: Matrix Market files, read and written in C++."""

from __future__ import annotations

import os

from asya_shim.adapters.by_path import by_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

    from asya_shim.adapters.by_path import Rows


def _uncompressed(path: Any) -> Optional[str]:
    name = os.fspath(path)
    return None if name.endswith((".gz", ".bz2")) else name


def _matrix_market(path: Any) -> str:
    name: str = os.fspath(path)
    return name if name.endswith(".mtx") else name + ".mtx"


ROWS: Dict[str, Rows] = {
    "scipy.io._fast_matrix_market": (
        ("mmread", by_object(0, "source", "rb", called=_uncompressed)),
        ("mminfo", by_object(0, "source", "rb", called=_uncompressed)),
        ("mmwrite", by_object(0, "target", "wb", called=_matrix_market)),
    ),
}
