"""Every function that answers questions about files, asked below a mount whose proxy is not running.

Run by an interpreter of any version with the shim on its path; prints JSON: what each call did.
"""

# ruff: noqa: SIM115

import glob
import json
import os
import pathlib
import shutil
import sys
import tempfile
import zipfile

STATE = "/state/a/b"
P = pathlib.Path(STATE)


def _all(iterator):
    return list(iterator)


CALLS = {
    "os.path.exists": lambda: os.path.exists(STATE),
    "os.path.lexists": lambda: os.path.lexists(STATE),
    "os.path.isfile": lambda: os.path.isfile(STATE),
    "os.path.isdir": lambda: os.path.isdir(STATE),
    "os.path.islink": lambda: os.path.islink(STATE),
    "os.path.ismount": lambda: os.path.ismount(STATE),
    "os.path.exists(bytes)": lambda: os.path.exists(os.fsencode(STATE)),
    "os.path.exists(Path)": lambda: os.path.exists(P),
    "os.path.realpath": lambda: os.path.realpath(STATE),
    "os.path.samefile": lambda: os.path.samefile(STATE, STATE + "c"),
    "os.path.getsize": lambda: os.path.getsize(STATE),
    "Path.exists": lambda: P.exists(),
    "Path.is_dir": lambda: P.is_dir(),
    "Path.is_file": lambda: P.is_file(),
    "Path.is_symlink": lambda: P.is_symlink(),
    "Path.is_mount": lambda: P.is_mount(),
    "Path.is_socket": lambda: P.is_socket(),
    "Path.is_fifo": lambda: P.is_fifo(),
    "Path.is_block_device": lambda: P.is_block_device(),
    "Path.is_char_device": lambda: P.is_char_device(),
    "Path.resolve": lambda: P.resolve(),
    "Path.glob": lambda: _all(P.glob("*")),
    "Path.glob(recursive)": lambda: _all(P.glob("**/*")),
    "Path.glob(literal)": lambda: _all(P.glob("x")),
    "Path.rglob": lambda: _all(P.rglob("*")),
    "Path.iterdir": lambda: _all(P.iterdir()),
    "Path.read_text": lambda: P.read_text(),
    "Path.touch": lambda: P.touch(),
    "Path.unlink(missing_ok)": lambda: P.unlink(missing_ok=True),
    "Path.mkdir(exist_ok)": lambda: P.mkdir(exist_ok=True, parents=True),
    "os.walk": lambda: _all(os.walk(STATE)),
    "os.walk(bottom up)": lambda: _all(os.walk(STATE, topdown=False)),
    "os.fwalk": lambda: _all(os.fwalk(STATE)),
    "os.access": lambda: os.access(STATE, os.F_OK),
    "os.stat": lambda: os.stat(STATE),
    "os.lstat": lambda: os.lstat(STATE),
    "os.listdir": lambda: os.listdir(STATE),
    "os.scandir": lambda: os.scandir(STATE),
    "os.open": lambda: os.open(STATE, os.O_RDONLY),
    "os.open(create)": lambda: os.open(STATE, os.O_RDWR | os.O_CREAT),
    "os.open(exclusive)": lambda: os.open(STATE, os.O_RDWR | os.O_CREAT | os.O_EXCL),
    "os.remove": lambda: os.remove(STATE),
    "os.rename": lambda: os.rename(STATE, STATE + "c"),
    "os.replace": lambda: os.replace(STATE, STATE + "c"),
    "os.mkdir": lambda: os.mkdir(STATE),
    "os.makedirs": lambda: os.makedirs(STATE, exist_ok=True),
    "os.rmdir": lambda: os.rmdir(STATE),
    "os.truncate": lambda: os.truncate(STATE, 0),
    "os.utime": lambda: os.utime(STATE),
    "os.chmod": lambda: os.chmod(STATE, 0o600),
    "os.statvfs": lambda: os.statvfs(STATE),
    "os.getxattr": lambda: os.getxattr(STATE, "user.asya.x"),
    "os.chdir": lambda: os.chdir(STATE),
    "glob.glob": lambda: glob.glob(STATE + "/*"),
    "glob.glob(literal)": lambda: glob.glob(STATE),
    "glob.glob(recursive)": lambda: glob.glob(STATE + "/**", recursive=True),
    "glob.iglob": lambda: _all(glob.iglob(STATE + "/*/x")),
    "shutil.rmtree": lambda: shutil.rmtree(STATE),
    "shutil.rmtree(ignore_errors)": lambda: shutil.rmtree(STATE, ignore_errors=True),
    "shutil.which": lambda: shutil.which(STATE),
    "shutil.which(path)": lambda: shutil.which("tool", path=STATE),
    "shutil.copy": lambda: shutil.copy(STATE, STATE + "c"),
    "shutil.disk_usage": lambda: shutil.disk_usage(STATE),
    "tempfile.mkstemp": lambda: tempfile.mkstemp(dir=STATE),
    "zipfile.is_zipfile": lambda: zipfile.is_zipfile(STATE),
    "open": lambda: open(STATE),
    "open(w)": lambda: open(STATE, "w").close(),
    "open(a)": lambda: open(STATE, "a").close(),
    "open(x)": lambda: open(STATE, "x"),
    "open(r+)": lambda: open(STATE, "r+"),
}
if sys.version_info >= (3, 12):
    CALLS["Path.walk"] = lambda: _all(P.walk())


def _outcome(call):
    try:
        value = call()
    except BaseException as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return {"raised": kinds, "errno": getattr(error, "errno", None), "text": str(error)}
    return {"returned": repr(value)}


if __name__ == "__main__":
    import asya_shim

    assert asya_shim.activate_from_environment()
    opened = []

    def watch(event, args):
        if event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            opened.append(repr(args[0]))

    sys.dont_write_bytecode = True
    sys.addaudithook(watch)
    report = {name: _outcome(call) for name, call in CALLS.items()}
    print(json.dumps({**report, "opened for writing": opened}))
