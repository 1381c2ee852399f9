"""safetensors: whole tensors as bytes, and what maps a file by the memory that it lies in."""

from __future__ import annotations

from asya_shim.adapters.by_path import StandIn, by_descriptor, of_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict

    from asya_shim.adapters.by_path import Rows


def _serialize_file(real: Callable[..., Any]) -> Any:
    def serialize_file(tensor_dict: Any, filename: Any, *args: Any, **kwargs: Any) -> None:
        from safetensors import serialize

        data = serialize(tensor_dict, *args, **kwargs)
        with open(filename, "wb") as file:
            file.write(data)

    return serialize_file


def _safe_open(real: Any) -> Any:
    return StandIn("safetensors._safetensors_rust", real, by_descriptor(real))


ROWS: Dict[str, Rows] = {
    "safetensors._safetensors_rust": (
        ("serialize_file", of_state(1, "filename", _serialize_file)),
        ("safe_open", _safe_open),
    ),
}
