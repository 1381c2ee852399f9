"""What adapters keep of the shim's promises: blocks that raise store nothing, and an outage is never an answer."""

from pathlib import Path

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
