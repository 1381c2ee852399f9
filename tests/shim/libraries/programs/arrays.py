"""Arrays and tensors: the adapted ones, and numpy."""

import h5py
import numpy
import safetensors
import safetensors.numpy
from rows import tabulate

PACKAGES = {"h5py": "h5py", "numpy": "numpy", "safetensors": "safetensors"}
ROWS = []
row = tabulate(ROWS)
ARRAY = numpy.arange(5000, dtype="f8").reshape(50, 100)


def put(path):
    ARRAY.tofile(path)


def read_savez(source):
    with numpy.load(source) as found:
        return sorted((name, found[name].tolist()) for name in found.files)


def write_mapped(path):
    mapped = numpy.memmap(path, dtype="f8", mode="w+", shape=(100,))
    mapped[:] = ARRAY[0]
    mapped.flush()
    del mapped


def read_mapped(path):
    mapped = numpy.memmap(path, dtype="f8", mode="r")
    return mapped.shape, mapped[100:110].tolist(), float(mapped.sum())


def save(path):
    numpy.save(path, ARRAY)


row("numpy", "save, load", lambda t: numpy.save(t, ARRAY), lambda s: numpy.load(s).tolist(), name="a.npy")
row("numpy", "savez_compressed, load", lambda t: numpy.savez_compressed(t, a=ARRAY, b=1), read_savez, name="a.npz")
row(
    "numpy",
    "load(mmap_mode='r')",
    None,
    lambda path: numpy.load(path, mmap_mode="r")[3].tolist(),
    make=save,
    by="path",
    name="a.npy",
)
row("numpy", "memmap(mode='r')", None, read_mapped, make=put, by="path")
row("numpy", "memmap(mode='w+')", write_mapped, read_mapped, by="path", instead="`save`, `tofile`")
row("numpy", "tofile, fromfile", lambda t: ARRAY.tofile(t), lambda s: numpy.fromfile(s).tolist())
row("numpy", "savetxt, loadtxt", lambda t: numpy.savetxt(t, ARRAY), lambda s: numpy.loadtxt(s).tolist())
row(
    "numpy",
    "savetxt, genfromtxt (.gz)",
    lambda path: numpy.savetxt(path, ARRAY),
    lambda path: numpy.genfromtxt(path).tolist(),
    by="path",
    name="a.txt.gz",
)


def write_h5(target):
    with h5py.File(target, "w") as f:
        f["a"] = ARRAY
        f.create_dataset("deep/b", data=ARRAY, compression="gzip", chunks=True)
        f.attrs["name"] = "é"


def read_h5(source):
    with h5py.File(source, "r") as f:
        return sorted(f), f["a"][:].tolist(), f["deep/b"][5:7].tolist(), f.attrs["name"], f.mode


def change_h5(path):
    write_h5(path)
    with h5py.File(path, "a") as f:
        f["a"][0, 0] = 7
    with h5py.File(path + "x", "x") as f:
        f["new"] = 1
    with h5py.File(path, "r+") as f, h5py.File(path + "x") as g:
        del f["deep"]
        f["deep/b"] = ARRAY + g["new"][()]


def is_hdf5(path):
    return h5py.is_hdf5(path), h5py.is_hdf5(__file__), h5py.is_hdf5(path + "-not")


row("h5py", "File", write_h5, read_h5, mode="w+b", name="a.h5")
row("h5py", "File, modes a, r+, x", change_h5, read_h5, by="path", name="a.h5")
row("h5py", "is_hdf5", None, is_hdf5, make=write_h5, by="path", name="a.h5")

TENSORS = {"a": ARRAY, "b": numpy.ones(3, dtype="f4")}


def write_tensors(target):
    if isinstance(target, str):
        safetensors.numpy.save_file(TENSORS, target, {"key": "value"})
    else:
        target.write(safetensors.numpy.save(TENSORS, {"key": "value"}))


def read_tensors(source):
    by_path = isinstance(source, str)
    found = safetensors.numpy.load_file(source) if by_path else safetensors.numpy.load(source.read())
    return sorted((name, value.tolist()) for name, value in found.items())


def read_slices(path):
    with safetensors.safe_open(path, framework="np") as f:
        return sorted(f.keys()), f.metadata(), f.get_slice("a")[3:5].tolist(), f.get_tensor("b").tolist()


row("safetensors", "save_file, load_file; save, load", write_tensors, read_tensors, name="a.safetensors")
row("safetensors", "safe_open", None, read_slices, make=write_tensors, by="path", name="a.safetensors")
