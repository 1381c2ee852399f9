"""polars: frames are read and written by an open file; what opens its files later is refused."""

from __future__ import annotations

from asya_shim.adapters.by_path import by_object, refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict

    from asya_shim.adapters.by_path import Make, Rows


_POLARS_PATHS = ("hive_partitioning", "hive_schema", "include_file_paths", "partition_by")


def _polars(position: int, name: str, mode: str) -> Make:
    return by_object(position, name, mode, library="polars", unless=_POLARS_PATHS)


# Of a long path its errors name the end only.
_polars_scan = refusing("polars")
_polars_sink = refusing("polars", 1)

ROWS: Dict[str, Rows] = {
    "polars.dataframe.frame": tuple(
        (f"DataFrame.write_{kind}", _polars(1, "file", "wb"))
        for kind in ("avro", "csv", "ipc", "ipc_stream", "json", "ndjson", "parquet")
    ),
    "polars.io.avro": (("read_avro", _polars(0, "source", "rb")),),
    "polars.io.csv.functions": (("read_csv", _polars(0, "source", "rb")), ("scan_csv", _polars_scan)),
    "polars.io.ipc.functions": (
        *((f"read_{kind}", _polars(0, "source", "rb")) for kind in ("ipc", "ipc_schema", "ipc_stream")),
        ("scan_ipc", _polars_scan),
    ),
    "polars.io.json.read": (("read_json", _polars(0, "source", "rb")),),
    "polars.io.lines": (("read_lines", _polars(0, "source", "rb")), ("scan_lines", _polars_scan)),
    "polars.io.ndjson": (("read_ndjson", _polars(0, "source", "rb")), ("scan_ndjson", _polars_scan)),
    "polars.io.parquet.functions": (
        *((f"read_{kind}", _polars(0, "source", "rb")) for kind in ("parquet", "parquet_metadata", "parquet_schema")),
        ("scan_parquet", _polars_scan),
    ),
    "polars.lazyframe.frame": tuple(
        (f"LazyFrame.sink_{kind}", _polars_sink) for kind in ("csv", "ipc", "ndjson", "parquet")
    ),
}
