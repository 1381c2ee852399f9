"""Tables: pandas, pyarrow, polars."""

import gzip
import os
import warnings

import pandas
import polars
import pyarrow
import pyarrow.csv
import pyarrow.dataset
import pyarrow.json
import pyarrow.orc
import pyarrow.parquet as parquet
from rows import tabulate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pyarrow.feather

PACKAGES = {"pandas": "pandas", "polars": "polars", "pyarrow": "pyarrow"}
ROWS = []
row = tabulate(ROWS)
RECORDS = {"n": list(range(100)), "half": [i / 2 for i in range(100)], "text": [f"é{i}" for i in range(100)]}
FRAME = pandas.DataFrame(RECORDS)
TABLE = pyarrow.table(RECORDS)
COLUMNS = polars.DataFrame(RECORDS)


def seen(frame):
    return list(frame.columns), frame.to_numpy().tolist()


def pandas_row(kind, name, by="both", reading=None, **writing):
    row(
        "pandas",
        f"to_{kind}, read_{kind}" + (" (.gz)" if name.endswith(".gz") else ""),
        lambda target: getattr(FRAME, f"to_{kind}")(target, **writing),
        lambda source: seen(getattr(pandas, f"read_{kind}")(source, **(reading or {}))),
        name=name,
        by=by,
    )


pandas_row("csv", "a.csv", index=False)
pandas_row("csv", "a.csv.gz", by="path", index=False)
pandas_row("json", "a.json")
pandas_row("pickle", "a.pickle")
pandas_row("parquet", "a.parquet")
pandas_row("feather", "a.feather")
pandas_row("orc", "a.orc")
pandas_row("xml", "a.xml", reading={"parser": "etree"}, index=False, parser="etree")
row(
    "pandas",
    "to_parquet(partition_cols=...), read_parquet of a directory",
    lambda path: FRAME.assign(part=FRAME["n"] % 3).to_parquet(path, partition_cols=["part"]),
    lambda path: seen(pandas.read_parquet(path, filters=[("part", "=", 1)]).sort_values("n")),
    by="path",
    name="parts",
    tree=True,
)
row(
    "pandas",
    "read_csv(memory_map=True)",
    None,
    lambda path: seen(pandas.read_csv(path, memory_map=True)),
    make=lambda path: FRAME.to_csv(path, index=False),
    by="path",
)


def rewrite_parquet(path):
    FRAME.head(1).to_parquet(path)
    again = pandas.concat([pandas.read_parquet(path), FRAME])
    again.to_parquet(path)
    os.replace(path, path + "x")
    pandas.read_parquet(path + "x").to_parquet(path)


def parquet_fails(path):
    FRAME.to_parquet(path)
    try:
        pandas.DataFrame({"a": [object()]}).to_parquet(path)
    except pyarrow.ArrowInvalid:
        pass


row("pandas", "to_parquet over what was read", rewrite_parquet, lambda path: seen(pandas.read_parquet(path)), by="path")
row("pandas", "to_parquet that fails", parquet_fails, lambda path: seen(pandas.read_parquet(path)), by="path")


def write_with_writer(target):
    with parquet.ParquetWriter(target, TABLE.schema) as writer:
        writer.write_table(TABLE)
        writer.write_table(TABLE)


def read_with_file(source):
    with parquet.ParquetFile(source) as f:
        return f.num_row_groups, f.read_row_group(1).to_pylist()


def write_os_file(path):
    with pyarrow.OSFile(path, "wb") as f:
        f.write(b"bytes" * 1000)


def read_os_file(path):
    with pyarrow.OSFile(path) as f:
        return f.size(), f.read(10), f.tell()


def read_mapped(path):
    with pyarrow.memory_map(path) as f:
        return f.size(), f.read(10)


def write_ipc(target):
    with pyarrow.ipc.new_file(target, TABLE.schema) as writer:
        writer.write_table(TABLE)


def read_ipc(source):
    with pyarrow.ipc.open_file(source) as reader:
        return reader.read_all().to_pylist()


def read_dataset(path):
    found = pyarrow.dataset.dataset(path, format="parquet", partitioning=["n"])
    return sorted(found.to_table(filter=pyarrow.dataset.field("half") < 5).to_pylist(), key=str), len(found.files)


def read_some(path):
    files = pyarrow.dataset.dataset(path, format="parquet").files
    return sorted(pyarrow.dataset.dataset(files[:7], format="parquet").to_table()["text"].to_pylist())


def write_small_dataset(path):
    pyarrow.dataset.write_dataset(TABLE.slice(0, 9), path, format="parquet", partitioning=["n"])


def make_gzipped(path):
    with gzip.open(path, "wt") as f:
        f.write("a,b\n1,2\n")


def make_lines(path):
    COLUMNS.write_ndjson(path)


def arrow_read(call):
    return lambda source: call(source).to_pylist()


row(
    "pyarrow",
    "parquet.write_table, read_table",
    lambda t: parquet.write_table(TABLE, t),
    arrow_read(parquet.read_table),
)
row("pyarrow", "parquet.ParquetWriter, ParquetFile", write_with_writer, read_with_file)
row(
    "pyarrow",
    "parquet.read_table(memory_map=True)",
    None,
    lambda path: parquet.read_table(path, memory_map=True).to_pylist(),
    make=lambda path: parquet.write_table(TABLE, path),
    by="path",
)
row("pyarrow", "dataset.write_dataset, dataset", write_small_dataset, read_dataset, by="path", tree=True)
row("pyarrow", "dataset.dataset of files", None, read_some, make=write_small_dataset, by="path", tree=True)
row("pyarrow", "csv.write_csv, read_csv", lambda t: pyarrow.csv.write_csv(TABLE, t), arrow_read(pyarrow.csv.read_csv))
row(
    "pyarrow",
    "csv.read_csv (.gz)",
    None,
    arrow_read(pyarrow.csv.read_csv),
    make=make_gzipped,
    by="path",
    name="a.csv.gz",
)
row("pyarrow", "json.read_json", None, arrow_read(pyarrow.json.read_json), make=make_lines)
row(
    "pyarrow",
    "orc.write_table, read_table",
    lambda t: pyarrow.orc.write_table(TABLE, t),
    arrow_read(pyarrow.orc.read_table),
)
row(
    "pyarrow",
    "feather.write_feather, read_table",
    lambda target: pyarrow.feather.write_feather(TABLE, target),
    arrow_read(pyarrow.feather.read_table),
)
row("pyarrow", "OSFile", write_os_file, read_os_file, by="path")
row("pyarrow", "memory_map, to read", None, read_mapped, make=write_os_file, by="path")
row("pyarrow", "ipc.new_file, open_file", write_ipc, read_ipc, instead="by file object")


def polars_row(kind, write=None):
    read = getattr(polars, f"read_{kind}")
    method = write or (lambda target: getattr(COLUMNS, f"write_{kind}")(target))
    row("polars", f"write_{kind}, read_{kind}", method, lambda source: read(source).rows())


for each in ("csv", "parquet", "ipc", "ipc_stream", "ndjson", "json", "avro"):
    polars_row(each)
row(
    "polars",
    "scan_parquet",
    None,
    lambda source: polars.scan_parquet(source).filter(polars.col("n") < 3).collect().rows(),
    make=lambda path: COLUMNS.write_parquet(path),
    instead="`read_parquet`, or by file object",
)
row(
    "polars",
    "sink_parquet",
    lambda target: COLUMNS.lazy().sink_parquet(target),
    lambda source: polars.read_parquet(source).rows(),
    instead="`collect().write_parquet`, or by file object",
)
row(
    "polars",
    "write_parquet(partition_by=...)",
    lambda path: COLUMNS.write_parquet(path, partition_by="n", mkdir=True),
    None,
    by="path",
    tree=True,
    instead="`pyarrow.dataset.write_dataset`",
)
