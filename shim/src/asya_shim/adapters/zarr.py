"""zarr: a move that replaces nothing, which it makes by a link."""

from __future__ import annotations

import errno
import os

from asya_shim.adapters.by_path import of_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict

    from asya_shim.adapters.by_path import Rows


def _zarr_move(real: Callable[..., Any]) -> Any:
    """It makes a link, so as not to replace a file. Here a file whose absence was observed is written on that
    condition with `consistency: cas`, and in the last place with `lww`, as any other."""

    def _safe_move(src: Any, dst: Any) -> None:
        if os.path.exists(dst):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(dst))
        os.replace(src, dst)

    return _safe_move


ROWS: Dict[str, Rows] = {
    "zarr.storage._local": (("_safe_move", of_state(1, "dst", _zarr_move)),),
}
