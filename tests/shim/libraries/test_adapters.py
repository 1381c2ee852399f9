"""What adapters keep of the shim's promises: blocks that raise store nothing, and an outage is never an answer."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from asya_shim import late
from support.state_proxy import ROOT, Proxy

PYTHON = str(ROOT / ".venv-adapted" / "bin" / "python")


def run(proxy: Proxy, program: str, tmp_path: Path, **env: str) -> None:
    """Run it in the environment of adapted libraries; it fails by an assertion."""
    assert Path(PYTHON).exists(), f"{PYTHON} is missing: run make libraries"
    done = proxy.run(program + "\nprint('fine')", PYTHON, cwd=tmp_path, env=env)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_a_block_that_raises_stores_nothing(proxy: Proxy, tmp_path: Path) -> None:
    program = f"""
import os, h5py
path = {proxy.mount.path + "/adapters.h5"!r}
def fails(mode):
    try:
        with h5py.File(path, mode) as f:
            f["b"] = list(range(10000))
            raise KeyError
    except KeyError:
        pass
for mode in "w", "x", "a":
    fails(mode)
    assert not os.path.exists(path), mode
with h5py.File(path, "w") as f:
    f["a"] = 1
for mode in "w", "r+", "a":
    fails(mode)
    with h5py.File(path) as f:
        assert (list(f), f["a"][()], f.filename) == (["a"], 1, path), mode
for mode, kind in ("x", FileExistsError), ("w-", FileExistsError):
    try: h5py.File(path, mode)
    except kind: pass
    else: raise AssertionError(mode)
for mode in "r", "r+":
    try: h5py.File(path + "-not", mode)
    except FileNotFoundError: pass
    else: raise AssertionError(mode)
f = h5py.File(path, "a")
f["c"] = 2
f.close()
f.close()
assert sorted(h5py.File(path)) == ["a", "c"]
with h5py.File("real.h5", "w") as f:
    f["a"] = 1
assert h5py.is_hdf5("real.h5")
"""
    run(proxy, program, tmp_path)
    assert (tmp_path / "real.h5").exists()


def test_a_write_that_fails_stores_nothing(proxy: Proxy, tmp_path: Path) -> None:
    program = f"""
import polars, cv2, numpy
path = {proxy.mount.path + "/adapters.avro"!r}
polars.DataFrame({{"a": [1]}}).write_avro(path)
try: polars.DataFrame({{"a": [object()]}}).write_avro(path)
except Exception: pass
else: raise AssertionError
assert polars.read_avro(path).rows() == [(1,)]
picture = path + ".no-such-format"
try: cv2.imwrite(picture, numpy.zeros((2, 2, 3), "u1"))
except cv2.error: pass
import os
assert not os.path.exists(picture)
"""
    run(proxy, program, tmp_path)


def test_an_outage_is_never_an_answer(proxy: Proxy, tmp_path: Path) -> None:
    program = f"""
import cv2, h5py, numpy, pandas, polars, pyarrow, pyarrow.csv, pyarrow.dataset, pyarrow.parquet, safetensors
from asya_shim import StateUnavailableError
path = {proxy.mount.path + "/adapters"!r}
image = numpy.zeros((2, 2, 3), "u1")
for call in (
    lambda: cv2.imread(path + ".png"),
    lambda: cv2.imwrite(path + ".png", image),
    lambda: h5py.is_hdf5(path),
    lambda: h5py.File(path),
    lambda: h5py.File(path, "a"),
    lambda: pandas.read_parquet(path),
    lambda: pandas.DataFrame({{"a": [1]}}).to_parquet(path),
    lambda: polars.read_csv(path),
    lambda: polars.DataFrame({{"a": [1]}}).write_parquet(path),
    lambda: pyarrow.OSFile(path),
    lambda: pyarrow.csv.read_csv(path),
    lambda: pyarrow.dataset.dataset(path),
    lambda: pyarrow.dataset.dataset([path, path]),
    lambda: pyarrow.memory_map(path),
    lambda: pyarrow.parquet.read_table(path),
    lambda: pyarrow.parquet.write_table(pyarrow.table({{"a": [1]}}), path),
    lambda: safetensors.safe_open(path, framework="np"),
):
    try: found = call()
    except StateUnavailableError: pass
    else: raise AssertionError(f"{{call.__code__.co_firstlineno}}: {{found!r}}")
"""
    environ = {"ASYA_STATE_SOCKET_DIR": str(tmp_path / "away"), "ASYA_STATE_REQUEST_TIMEOUT": "20ms"}
    run(proxy, program, tmp_path, **environ)
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_ends_after_reading_by_arrow_s_threads(proxy: Proxy, tmp_path: Path) -> None:
    """They let go of the files afterwards; pyarrow aborts one such program in five on a busy machine."""
    program = f"""
import pyarrow, pyarrow.parquet as pq, pyarrow.csv as csv
path = {proxy.mount.path + "/threads"!r}
table = pyarrow.table({{"a": [1, 2]}})
pq.write_table(table, path)
csv.write_csv(table, path + ".csv")
for read in csv.read_csv, pq.read_table:
    for _ in range(3):
        assert read(path + (".csv" if read is csv.read_csv else "")) == table
"""
    run(proxy, program, tmp_path)
    reading = program.replace("pq.write", "#").replace("csv.write", "#")
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(run, proxy, reading, tmp_path) for _ in range(8)]:
            done.result()


def test_the_end_of_the_interpreter_waits_for_what_a_thread_holds(proxy: Proxy, tmp_path: Path) -> None:
    """And for a thread that is not Python's own, and still runs Python: what lets go of a file closes it."""
    program = """
import _thread, time
from asya_shim.adapters import arrow_threads
class Thing: pass
held, ended = [arrow_threads.lend(Thing())], []
def let_go():
    time.sleep(0.2)
    held.clear()
    time.sleep(0.2)
    ended.append(True)
_thread.start_new_thread(let_go, ())
arrow_threads.settle()
assert (held, ended) == ([], [True])
kept = arrow_threads.lend(Thing())
began = time.monotonic()
arrow_threads.settle()
assert 0.9 < time.monotonic() - began
"""
    run(proxy, program, tmp_path)


def test_a_block_around_arrow_s_files_that_raises_stores_nothing(proxy: Proxy, tmp_path: Path) -> None:
    program = f"""
import pyarrow, pyarrow.parquet as pq
path = {proxy.mount.path + "/arrow"!r}
table, other = pyarrow.table({{"a": [1]}}), pyarrow.table({{"a": [1, 2]}})
def parquet():
    with pq.ParquetWriter(path, other.schema) as writer:
        writer.write_table(other)
        raise KeyError
def text():
    with pyarrow.OSFile(path, "wb") as file:
        file.write(b"half")
        raise KeyError
def refused():
    pq.write_table(other, path, compression="no such thing")
def broken():
    with pq.ParquetWriter(path, other.schema) as writer:
        writer.write_table(pyarrow.table({{"b": [1]}}))
import os
for there in False, True:
    if there:
        pq.write_table(table, path)
    for call in parquet, text, refused, broken:
        try: call()
        except Exception: pass
        else: raise AssertionError(call)
        assert (pq.read_table(path) == table) if there else not os.path.exists(path), call
with pq.ParquetWriter(path, other.schema) as writer:
    writer.write_table(other)
assert pq.read_table(path) == other
with pyarrow.OSFile(path, "wb") as file:
    file.write(b"whole")
with pyarrow.OSFile(path) as file:
    assert file.read() == b"whole"
assert isinstance(file, pyarrow.NativeFile)
"""
    run(proxy, program, tmp_path)


def test_an_hdf5_file_left_open_is_stored_whole_at_the_turn_s_end(proxy: Proxy, tmp_path: Path) -> None:
    program = f"""
import io, h5py, asya_shim
path, other = {proxy.mount.path + "/left.h5"!r}, {proxy.mount.path + "/failed.h5"!r}
def stored(path):
    with open(path, "rb") as file:
        return list(h5py.File(io.BytesIO(file.read())))
with asya_shim.turn(process_wide=True):
    new = h5py.File(path, "w")
    new["a"] = list(range(100000))
assert stored(path) == ["a"]
with asya_shim.turn(process_wide=True):
    new["b"] = list(range(100000))
assert stored(path) == ["a", "b"]
with asya_shim.turn():
    try:
        with asya_shim.turn():
            failed = h5py.File(other, "w")
            failed["a"] = 1
            raise KeyError
    except KeyError:
        pass
import os
assert not os.path.exists(other) and not failed
changed = os.stat(path).st_mtime_ns
with asya_shim.turn(process_wide=True):
    assert new["a"][0] == 0
assert os.stat(path).st_mtime_ns == changed, "stored without a change"
new["c"] = 1  # at the interpreter's end
"""
    run(proxy, program, tmp_path)
    program = f"import h5py; assert list(h5py.File({proxy.mount.path + '/left.h5'!r})) == ['a', 'b', 'c']"
    run(proxy, program, tmp_path)


def test_stand_ins_are_like_their_classes(proxy: Proxy, tmp_path: Path) -> None:
    program = f"""
import copy, pickle, pyarrow, pyarrow.dataset, pyarrow.parquet, safetensors, typing
for kind in pyarrow.OSFile, safetensors.safe_open:
    assert copy.deepcopy(kind) is kind and pickle.loads(pickle.dumps(kind)) is kind
    assert isinstance(None, kind | None) and isinstance(None, None | kind) and typing.Optional[kind]
    class Below(kind if kind is pyarrow.OSFile else object): pass
    assert issubclass(Below, kind) == (kind is pyarrow.OSFile)
path = {proxy.mount.path + "/pickled.parquet"!r}
pyarrow.parquet.write_table(pyarrow.table({{"a": [1]}}), path)
assert pickle.loads(pickle.dumps(pyarrow.dataset.dataset(path))).count_rows() == 1
"""
    run(proxy, program, tmp_path)


def test_a_url_is_no_path_below_the_working_directory(proxy: Proxy, tmp_path: Path) -> None:
    program = f"""
import os
os.chdir({proxy.mount.path!r})
from asya_shim.adapters.by_path import place_of
assert place_of("s3://bucket/x") is None
assert place_of("x") is not None
import cv2
cv2.FileStorage({str(tmp_path / "real.xml")!r}, cv2.FILE_STORAGE_WRITE, encoding="utf-8").release()
"""
    run(proxy, program, tmp_path)


def test_polars_finds_nothing_wrong_where_it_would_look_for_files_itself(proxy: Proxy, tmp_path: Path) -> None:
    program = f"""
import os, polars
path = {proxy.mount.path + "/frames"!r}
os.makedirs(path)
frame = polars.DataFrame({{"a": [1]}})
frame.write_parquet(path + "/1.parquet")
frame.write_csv(path + "/1.csv")
for call in (
    lambda: polars.read_parquet(path + "/*.parquet"),
    lambda: polars.read_parquet([path + "/1.parquet"]),
    lambda: polars.read_csv(path + "/?.csv"),
    lambda: polars.read_csv(source=path + "/*.csv"),
    lambda: polars.scan_csv([path + "/1.csv"]),
    lambda: polars.scan_parquet([path + "/1.parquet"]),
    lambda: polars.scan_parquet(path + "/*.parquet"),
):
    try: call()
    except OSError as error: assert error.errno == 95, error
    else: raise AssertionError
frame.write_parquet(path + "/[1].parquet")
assert polars.read_parquet(path + "/[1].parquet", glob=False).rows() == [(1,)]
os.makedirs("frames")
frame.write_parquet("frames/1.parquet")
assert polars.read_parquet("frames/*.parquet").rows() == polars.read_parquet(["frames/1.parquet"]).rows() == [(1,)]
"""
    run(proxy, program, tmp_path)


TORCH = {
    "__init__": "from torch.serialization import load, save",
    "jit/__init__": "from torch.jit._serialization import load, save",
    "serialization": """
import ctypes, os
libc = ctypes.CDLL(None)
def save(obj, f, pickle_module=None):
    if isinstance(f, (str, os.PathLike)):
        file = libc.creat(os.fspath(f).encode(), 0o644)
        if file < 0: raise RuntimeError("Parent directory does not exist.")
        f = open(file, "wb")
    f.write(obj)
    if obj == b"cannot be written": raise TypeError
    f.flush()
def load(f, map_location=None, *, mmap=None):
    if mmap:
        file = libc.open(os.fspath(f).encode(), os.O_RDONLY)
        if file < 0: raise RuntimeError("unable to open file")
        with open(file, "rb") as mapped: return mapped.read(os.path.getsize(f))
    with (open(f, "rb") if isinstance(f, (str, os.PathLike)) else f) as file: return file.read()
""",
    "jit/_serialization": """
from torch.serialization import libc, os
import torch.serialization
def save(m, f, _extra_files=None):
    if isinstance(f, (str, os.PathLike)):
        if libc.creat(os.fspath(f).encode(), 0o644) < 0: raise RuntimeError("open file failed")
    else: f.write(m)
def load(f, map_location=None):
    if isinstance(f, (str, os.PathLike)): return torch.serialization.load(f, mmap=True)
    return f.read()
""",
}
"""What PyTorch does with paths; it is too large to be installed for these tests. What it writes and what it maps is
opened in C++, and only the rest by Python."""


def test_what_pytorch_opens_itself(proxy: Proxy, tmp_path: Path) -> None:
    for name, text in TORCH.items():
        module = tmp_path / "torch" / f"{name}.py"
        module.parent.mkdir(exist_ok=True, parents=True)
        module.write_text(text)
    program = f"""
import os, pathlib, torch, torch.jit
path = {proxy.mount.path + "/model.pt"!r}
for modules in torch, torch.jit:
    for given in path, pathlib.Path(path):
        modules.save(b"tensors", given)
        assert modules.load(given) == b"tensors"
        os.remove(path)
    modules.save(b"elsewhere", "real.pt")
torch.save(b"tensors", f=path)
assert torch.load(f=path, mmap=True) == torch.load(path, mmap=True) == torch.load(path, mmap=False) == b"tensors"
try: torch.save(b"cannot be written", path)
except TypeError: pass
else: raise AssertionError
assert torch.load(path) == b"tensors"
os.remove(path)
for missing in (lambda: torch.load(path), lambda: torch.load(path, mmap=True), lambda: torch.jit.load(path)):
    try: missing()
    except FileNotFoundError: pass
    else: raise AssertionError
"""
    run(proxy, program, tmp_path)
    assert (tmp_path / "real.pt").exists()


class Name(str):
    """A path, or something with attributes."""


ROOMS = {room: import_module(f"asya_shim.adapters.{room}").ROWS for room in late.ADAPTED.values()}


def test_each_room_of_adapters_waits_for_the_modules_it_has_rows_for() -> None:
    assert {name: room for room, rows in ROOMS.items() for name in rows} == late.ADAPTED


@pytest.mark.parametrize(
    "row", [row for name, room in late.ADAPTED.items() for row in ROOMS[room][name]], ids=lambda row: row[0]
)
def test_arguments_of_later_releases_are_passed_on(row: tuple[str, Callable[..., Any]]) -> None:
    def real(*args: object, **kwargs: object) -> object:
        return args, kwargs

    adapted = row[1](real)
    args = (Name("/elsewhere/x"), Name("/elsewhere/y"), 3, 4, 5)
    for size in range(1, 6):
        assert adapted(*args[:size], later=1) == (args[:size], {"later": 1})
