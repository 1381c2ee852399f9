"""polars: a frame is read and written by an open file; what opens files later, or several, is refused."""

from __future__ import annotations

import functools
import os

from asya_shim.adapters.by_path import by_object, each, place_of, refused, refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict

    from asya_shim.adapters.by_path import Make, Rows


_POLARS_PATHS = ("hive_partitioning", "hive_schema", "include_file_paths", "partition_by")


def _polars(position: int, name: str, mode: str) -> Make:
    return by_object(position, name, mode, library="polars", unless=_POLARS_PATHS)


def _one(make: Make) -> Make:
    """`make`'s for one path; of a list and of a pattern, which polars looks for by itself, it would find nothing."""

    def make_checked(real: Callable[..., Any]) -> Any:
        adapted = make(real)

        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            source = args[0] if args else kwargs.get("source")
            several = isinstance(source, (list, tuple))
            for path in each(source):
                if place_of(path) is not None and (several or (kwargs.get("glob", True) and _is_pattern(path))):
                    raise refused(path, "polars")
            return adapted(*args, **kwargs)

        return call

    return make_checked


def _is_pattern(path: Any) -> bool:
    text = os.fsdecode(path)
    return any(sign in text for sign in "*?[")


_reading = _one(_polars(0, "source", "rb"))

# Of a long path its errors name the end only.
_polars_scan = refusing("polars")
_polars_sink = refusing("polars", 1)

ROWS: Dict[str, Rows] = {
    "polars.dataframe.frame": tuple(
        (f"DataFrame.write_{kind}", _polars(1, "file", "wb"))
        for kind in ("avro", "csv", "ipc", "ipc_stream", "json", "ndjson", "parquet")
    ),
    "polars.io.avro": (("read_avro", _polars(0, "source", "rb")),),
    "polars.io.csv.functions": (("read_csv", _reading), ("scan_csv", _polars_scan)),
    "polars.io.ipc.functions": (
        *((f"read_{kind}", _reading) for kind in ("ipc", "ipc_schema", "ipc_stream")),
        ("scan_ipc", _polars_scan),
    ),
    "polars.io.json.read": (("read_json", _polars(0, "source", "rb")),),
    "polars.io.lines": (("read_lines", _reading), ("scan_lines", _polars_scan)),
    "polars.io.ndjson": (("read_ndjson", _reading), ("scan_ndjson", _polars_scan)),
    "polars.io.parquet.functions": (
        *((f"read_{kind}", _reading) for kind in ("parquet", "parquet_metadata", "parquet_schema")),
        ("scan_parquet", _polars_scan),
    ),
    "polars.lazyframe.frame": tuple(
        (f"LazyFrame.sink_{kind}", _polars_sink) for kind in ("csv", "ipc", "ndjson", "parquet")
    ),
}
