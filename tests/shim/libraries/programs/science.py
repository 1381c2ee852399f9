"""Science: joblib, scipy, zarr."""

import gzip

import joblib
import numpy
import scipy.io
import scipy.io.wavfile
import scipy.sparse
import zarr
import zarr.storage
from rows import tabulate

PACKAGES = {"joblib": "joblib", "scipy": "scipy", "zarr": "zarr"}
ROWS = []
row = tabulate(ROWS)
ARRAY = numpy.arange(5000, dtype="f8").reshape(50, 100)
MATRIX = scipy.sparse.csr_matrix(numpy.eye(5))


def write_gzipped(path):
    with gzip.open(path, "wb") as f:
        scipy.io.mmwrite(f, MATRIX)


def cube(value):
    return {"cube": value**3, "array": ARRAY}


def memorise(path):
    memory = joblib.Memory(path, verbose=0)
    remembered = memory.cache(cube)
    return (
        remembered(3)["cube"],
        remembered.check_call_in_cache(3),
        remembered(3)["array"].sum(),
        len(memory.store_backend.get_items()),
    )


row("joblib", "dump, load", lambda target: joblib.dump({"a": ARRAY}, target), lambda s: joblib.load(s)["a"].tolist())
row("joblib", "dump(compress=3), load", lambda t: joblib.dump(ARRAY, t, compress=3), lambda s: joblib.load(s).tolist())
row(
    "joblib",
    "load(mmap_mode='r')",
    None,
    lambda path: joblib.load(path, mmap_mode="r")[3].tolist(),
    make=lambda path: joblib.dump(ARRAY, path),
    by="path",
)
row("joblib", "Memory", memorise, memorise, by="path", tree=True)
row(
    "scipy",
    "io.savemat, loadmat",
    lambda target: scipy.io.savemat(target, {"a": ARRAY}),
    lambda source: scipy.io.loadmat(source)["a"].tolist(),
    name="a.mat",
)


def read_matrix(source):
    size = scipy.io.mminfo(source)
    if not isinstance(source, str):
        source.seek(0)
    return size, scipy.io.mmread(source).toarray().tolist()


row("scipy", "io.mmwrite, mmread, mminfo", lambda t: scipy.io.mmwrite(t, MATRIX), read_matrix, name="a.mtx")
row("scipy", "io.mmread (.gz)", None, read_matrix, make=write_gzipped, by="path", name="a.mtx.gz")


def write_netcdf(path):
    with scipy.io.netcdf_file(path, "w") as f:
        f.createDimension("n", 100)
        f.createVariable("v", "f8", ("n",))[:] = ARRAY[0]


def read_netcdf(path):
    with scipy.io.netcdf_file(path, "r", mmap=False) as f:
        return f.variables["v"][:].tolist()


row("scipy", "io.netcdf_file", write_netcdf, read_netcdf, by="path")
row(
    "scipy",
    "io.wavfile.write, read",
    lambda target: scipy.io.wavfile.write(target, 8000, ARRAY[0].astype("i2")),
    lambda source: scipy.io.wavfile.read(source)[1].tolist(),
)
row(
    "scipy",
    "sparse.save_npz, load_npz",
    lambda target: scipy.sparse.save_npz(target, MATRIX),
    lambda source: scipy.sparse.load_npz(source).toarray().tolist(),
    name="a.npz",
)


def write_zarr(path):
    group = zarr.open_group(path, mode="w")
    group.create_array("a", data=ARRAY, chunks=(20, 50))
    group.attrs["name"] = "é"
    group["a"][0, 0] = 7


def read_zarr(path):
    group = zarr.open_group(path, mode="r")
    return sorted(group), group["a"][:].tolist(), dict(group.attrs)


def write_zipped(path):
    with zarr.storage.ZipStore(path, mode="w") as store:
        zarr.create_array(store, data=ARRAY)


def read_zipped(path):
    with zarr.storage.ZipStore(path, mode="r") as store:
        return zarr.open_array(store, mode="r")[:].tolist()


row("zarr", "open_group", write_zarr, read_zarr, by="path", tree=True)
row("zarr", "storage.ZipStore", write_zipped, read_zipped, by="path", name="a.zip")
