"""Does file operations in two worlds at once, a real directory and one below a mount, and says what each saw.

Commands are lines of JSON on standard input, and so are the answers on standard output:

    {"begin": NAME, "turn": BOOL}   two new empty directories; below the mount as one turn, or outside turns
    {"do": [OPERATION, ...]}        -> [[REAL, STATE] or [] where left out, ...]
    {"end": true}                   closes what is open -> {"closed": [[REAL, STATE], ...], "trees": [REAL, STATE]}

An operation is [NAME, ARGUMENTS...], a method of `World`. An outcome is a text: the value, or type, errno and
file name of the exception. Paths are relative to the world's directory; "b:..." is given as bytes, "p:..." as
a `Path`, and "r:..." relative to the working directory that `chdir` has chosen. Run by an interpreter of any
version with the shim on its path.
"""

# ruff: noqa: SIM115

import glob
import io
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile

import asya_shim

j = os.path.join
_FORMS = ("b:", "p:", "r:")
_RECENT = 10**9


def bare(path):
    return path[2:] if path[:2] in _FORMS else path


class World:
    """One directory, and what is open in it: file objects and descriptors by slot."""

    def __init__(self, root):
        self.root = root
        self.files = {}
        self.fds = {}
        self.cwd = "."
        os.mkdir(root)

    def path(self, text):
        name = bare(text)
        full = self.root if name == "." else j(self.root, name)
        if text.startswith("b:"):
            return os.fsencode(full)
        if text.startswith("p:"):
            return pathlib.Path(full)
        return name if text.startswith("r:") else full

    def do(self, operation):
        name, arguments = operation[0], operation[1:]
        relative = any(type(argument) is str and argument.startswith("r:") for argument in arguments)
        try:
            if relative:
                os.chdir(self.path(self.cwd))
            try:
                text = repr(getattr(self, name)(*arguments))
            finally:
                if relative:
                    os.chdir("/")
        except Exception as error:
            text = "%s errno=%s" % (type(error).__name__, getattr(error, "errno", None))  # noqa: UP031
            for number in ("filename", "filename2"):
                value = getattr(error, number, None)
                if value is not None:
                    text += " a descriptor" if type(value) is int else " %r" % (value,)  # noqa: UP031
            if os.environ.get("DEBUG_DIFFERENTIAL"):
                import traceback

                traceback.print_exc()
        return re.sub("tmp[a-z0-9_]{8}", "tmpNAME", text.replace(self.root, "ROOT"))

    # File objects

    def open(self, slot, path, mode, buffering=-1, newline=None):
        if slot in self.files:
            self.files.pop(slot).close()
        layer = {} if "b" in mode else {"encoding": "utf-8", "newline": newline}
        self.files[slot] = file = open(self.path(path), mode, buffering, **layer)
        return file.mode, file.tell(), file.readable(), file.writable(), file.seekable(), file.closed

    def write(self, slot, text):
        file = self.files[slot]
        return file.write(text if isinstance(file, io.TextIOBase) else text.encode())

    def read(self, slot, size=-1):
        return self.files[slot].read(size)

    def readline(self, slot):
        return self.files[slot].readline()

    def readlines(self, slot):
        return self.files[slot].readlines()

    def following(self, slot):
        return next(self.files[slot], None)

    def readinto(self, slot, size):
        buffer = bytearray(size)
        return self.files[slot].readinto(buffer), bytes(buffer)

    def seek(self, slot, offset, whence=0):
        return self.files[slot].seek(offset, whence)

    def tell(self, slot):
        return self.files[slot].tell()

    def truncate(self, slot, size=None):
        return self.files[slot].truncate(size)

    def flush(self, slot):
        return self.files[slot].flush()

    def fsync(self, slot):
        self.files[slot].flush()
        return os.fsync(self.files[slot].fileno())

    def fstat(self, slot):
        return self._facts(os.fstat(self.files[slot].fileno()))

    def write_below(self, slot, text):
        """By the descriptor of a file object."""
        self.files[slot].flush()
        return os.write(self.files[slot].fileno(), text.encode())

    def is_same(self, slot, path):
        return os.path.samestat(os.fstat(self.files[slot].fileno()), os.stat(self.path(path)))

    def close(self, slot):
        return self.files.pop(slot).close()

    # Descriptors

    def os_open(self, slot, path, flags, mode=0o666):
        if slot in self.fds:
            os.close(self.fds.pop(slot))
        total = 0
        for flag in flags.split():
            total |= getattr(os, "O_" + flag)
        self.fds[slot] = os.open(self.path(path), total, mode)

    def os_read(self, slot, size):
        return os.read(self.fds[slot], size)

    def os_write(self, slot, text):
        return os.write(self.fds[slot], text.encode())

    def os_pread(self, slot, size, at):
        return os.pread(self.fds[slot], size, at)

    def os_pwrite(self, slot, text, at):
        return os.pwrite(self.fds[slot], text.encode(), at)

    def os_readv(self, slot, *sizes):
        buffers = [bytearray(size) for size in sizes]
        return os.readv(self.fds[slot], buffers), buffers

    def os_writev(self, slot, *texts):
        return os.writev(self.fds[slot], [text.encode() for text in texts])

    def os_lseek(self, slot, offset, whence):
        return os.lseek(self.fds[slot], offset, whence)

    def os_ftruncate(self, slot, size):
        return os.ftruncate(self.fds[slot], size)

    def os_truncate(self, slot, size):
        return os.truncate(self.fds[slot], size)

    def os_fstat(self, slot):
        return self._facts(os.fstat(self.fds[slot])), self._facts(os.stat(self.fds[slot]))

    def os_fsync(self, slot):
        return os.fsync(self.fds[slot])

    def os_dup(self, slot, other):
        if other in self.fds:
            os.close(self.fds.pop(other))
        self.fds[other] = os.dup(self.fds[slot])

    def os_fdopen(self, slot, other, mode):
        if other in self.files:
            self.files.pop(other).close()
        self.files[other] = os.fdopen(self.fds[slot], mode)
        del self.fds[slot]
        return self.files[other].mode, self.files[other].tell()

    def os_sendfile(self, slot, other, size):
        return os.sendfile(self.fds[other], self.fds[slot], 0, size)

    def os_copy_file_range(self, slot, other, size):
        return os.copy_file_range(self.fds[slot], self.fds[other], size)

    def os_listdir(self, slot):
        return sorted(os.listdir(self.fds[slot]))

    def os_scandir(self, slot):
        with os.scandir(self.fds[slot]) as entries:
            return sorted((entry.name, entry.path, entry.is_dir()) for entry in entries)

    def os_fchdir(self, slot):
        os.fchdir(self.fds[slot])
        try:
            return os.getcwd()
        finally:
            os.chdir("/")

    def at(self, slot, call, name, *arguments):
        """`os.{call}` of a name in an open directory."""
        value = getattr(os, call)(name, *arguments, dir_fd=self.fds[slot])
        if call == "open":
            return os.close(value)
        return self._facts(value) if isinstance(value, os.stat_result) else value

    def rename_at(self, slot, name, other, new):
        return os.rename(name, new, src_dir_fd=self.fds[slot], dst_dir_fd=self.fds[other])

    def os_close(self, slot):
        return os.close(self.fds.pop(slot))

    # Names

    def _facts(self, status):
        mode = status.st_mode
        kind = "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
        if kind == "directory":
            return kind
        return kind, status.st_size, oct(stat.S_IMODE(mode)), status.st_nlink

    def stat(self, path):
        return self._facts(os.stat(self.path(path)))

    def lstat(self, path):
        return self._facts(os.lstat(self.path(path)))

    def look(self, path):
        full = self.path(path)
        of_path = pathlib.Path(os.fsdecode(full))
        return (
            [getattr(os.path, name)(full) for name in ("exists", "lexists", "isfile", "isdir", "islink", "ismount")],
            [getattr(of_path, name)() for name in ("exists", "is_file", "is_dir", "is_symlink")],
            [os.access(full, mode) for mode in (os.F_OK, os.R_OK, os.W_OK)],
        )

    def getsize(self, path):
        return os.path.getsize(self.path(path)) if not os.path.isdir(self.path(path)) else None

    def times(self, path):
        """The time it was set to, if it was set: such times are small here."""
        found = os.stat(self.path(path))
        if stat.S_ISDIR(found.st_mode):
            return None
        return found.st_mtime_ns if found.st_mtime < _RECENT else "recent"

    def listdir(self, path):
        return sorted(os.listdir(self.path(path)))

    def scandir(self, path):
        with os.scandir(self.path(path)) as entries:
            return sorted(
                (entry.name, entry.path, entry.is_dir(), entry.is_file(), entry.is_symlink(), os.fspath(entry))
                + ((entry.stat().st_size,) if entry.is_file() else ())
                for entry in entries
            )

    def walk(self, path, topdown=True):
        return sorted((top, sorted(dirs), sorted(files)) for top, dirs, files in os.walk(self.path(path), topdown))

    def fwalk(self, path):
        return sorted((top, sorted(dirs), sorted(files)) for top, dirs, files, _ in os.fwalk(self.path(path)))

    def glob(self, pattern):
        return sorted(glob.glob(j(glob.escape(self.root), pattern), recursive=True))

    def rglob(self, path, pattern):
        found = pathlib.Path(os.fsdecode(self.path(path)))
        return sorted(map(str, found.rglob(pattern))), sorted(map(str, found.glob(pattern)))

    def iterdir(self, path):
        return sorted(map(str, pathlib.Path(os.fsdecode(self.path(path))).iterdir()))

    def mkdir(self, path, mode=0o777):
        return os.mkdir(self.path(path), mode)

    def makedirs(self, path, exist_ok=False):
        return os.makedirs(self.path(path), exist_ok=exist_ok)

    def path_mkdir(self, path, parents, exist_ok):
        return pathlib.Path(os.fsdecode(self.path(path))).mkdir(parents=parents, exist_ok=exist_ok)

    def rmdir(self, path):
        return os.rmdir(self.path(path))

    def unlink(self, path):
        return os.unlink(self.path(path))

    def path_unlink(self, path, missing_ok):
        return pathlib.Path(os.fsdecode(self.path(path))).unlink(missing_ok=missing_ok)

    def rename(self, source, target):
        return os.rename(self.path(source), self.path(target))

    def replace(self, source, target):
        return os.replace(self.path(source), self.path(target))

    def link(self, source, target):
        return os.link(self.path(source), self.path(target))

    def symlink(self, source, target):
        return os.symlink(self.path(source), self.path(target))

    def readlink(self, path):
        return os.readlink(self.path(path))

    def mkfifo(self, path):
        return os.mkfifo(self.path(path))

    def truncate_path(self, path, size):
        return os.truncate(self.path(path), size)

    def utime(self, path, seconds):
        return os.utime(self.path(path), (seconds, seconds))

    def chmod(self, path, mode):
        return os.chmod(self.path(path), mode)

    def chdir(self, path):
        os.chdir(self.path(path))
        try:
            self.cwd = bare(path)
            return os.getcwd()
        finally:
            os.chdir("/")

    def stay_while_renamed(self, path, source, target):
        """A rename around the working directory."""
        os.chdir(self.path(path))
        try:
            os.rename(self.path(source), self.path(target))
            return os.getcwd(), os.listdir()
        finally:
            os.chdir("/")

    def here(self, path):
        """What relative names mean; `path` is taken relative to the working directory."""
        return os.getcwd(), os.path.abspath(self.path(path)), sorted(os.listdir()), sorted(glob.glob("*"))

    def samefile(self, path, other):
        return os.path.samefile(self.path(path), self.path(other))

    def realpath(self, path):
        return os.path.realpath(self.path(path)) == os.path.realpath(self.root) + "/" + os.path.normpath(bare(path))

    def statvfs(self, path):
        return os.statvfs(self.path(path)).f_bsize > 0

    def setxattr(self, path, name, value):
        return os.setxattr(self.path(path), "user." + name, value.encode())

    def getxattr(self, path, name):
        return os.getxattr(self.path(path), "user." + name)

    def removexattr(self, path, name):
        return os.removexattr(self.path(path), "user." + name)

    def listxattr(self, path):
        return sorted(os.listxattr(self.path(path)))

    # What programs do with them

    def get(self, path):
        return pathlib.Path(os.fsdecode(self.path(path))).read_bytes()

    def put(self, path, text):
        return pathlib.Path(os.fsdecode(self.path(path))).write_bytes(text.encode())

    def add(self, path, text):
        with open(self.path(path), "a", encoding="utf-8") as file:
            return file.write(text)

    def touch(self, path, exist_ok=True):
        return pathlib.Path(os.fsdecode(self.path(path))).touch(exist_ok=exist_ok)

    def put_atomically(self, path, text):
        target = self.path(path)
        handle, name = tempfile.mkstemp(dir=os.path.dirname(target))
        try:
            with open(handle, "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except OSError as error:
            os.unlink(name)
            raise type(error)(error.errno, "") from None

    def temporary(self, path):
        with (
            tempfile.NamedTemporaryFile(dir=self.path(path)) as named,
            tempfile.TemporaryFile(dir=self.path(path)) as anonymous,
        ):
            named.write(b"n")
            named.flush()
            anonymous.write(b"a")
            anonymous.seek(0)
            return anonymous.read(), os.path.getsize(named.name), len(os.listdir(self.path(path)))

    def copyfile(self, source, target):
        return shutil.copyfile(self.path(source), self.path(target))

    def copy(self, source, target):
        return shutil.copy(self.path(source), self.path(target))

    def copy2(self, source, target):
        return shutil.copy2(self.path(source), self.path(target))

    def copytree(self, source, target):
        return shutil.copytree(self.path(source), self.path(target))

    def move(self, source, target):
        return shutil.move(self.path(source), self.path(target))

    def rmtree(self, path, ignore_errors=False):
        return shutil.rmtree(self.path(path), ignore_errors=ignore_errors)

    def abort(self, path, mode, text):
        """A block that raises."""
        try:
            with open(self.path(path), mode) as file:
                file.write(text)
                file.flush()
                raise KeyError
        except KeyError:
            return "raised"

    def lock(self, slot):
        import fcntl

        return fcntl.flock(self.files[slot], fcntl.LOCK_EX | fcntl.LOCK_NB)

    def map_and_close(self, slot):
        """Close a file while a writable mapping of it lives."""
        import mmap

        file = self.files.pop(slot)
        file.flush()
        with mmap.mmap(file.fileno(), 0):
            return file.close()

    def put_in_a_dead_process(self, path, text):
        """Written and flushed, and never closed, since the process ends at once."""
        child = os.fork()
        if not child:
            file = open(self.path(path), "w")
            file.write(text)
            file.flush()
            os._exit(0)
        return os.waitpid(child, 0)[1]

    def stat_in_another_process(self, path):
        """The permissions that a new Python sees."""
        return self._elsewhere("print(oct(os.stat(sys.argv[1]).st_mode & 0o777))", path)

    def mkdir_in_another_process(self, path):
        return self._elsewhere("os.mkdir(sys.argv[1])", path)

    def _elsewhere(self, statement, path):
        program = "import asya_shim, os, sys; asya_shim.activate_from_environment(); " + statement
        done = subprocess.run([sys.executable, "-c", program, self.path(path)], stdout=subprocess.PIPE, check=True)
        return done.stdout.decode().strip()

    # The end

    def finish(self):
        for slot in sorted(self.files):
            yield ["close", slot]
        for slot in sorted(self.fds):
            yield ["os_close", slot]

    def tree(self):
        found = {}
        for top, dirs, files in os.walk(self.root):
            for name in dirs:
                found[os.path.relpath(j(top, name), self.root)] = "directory"
            for name in files:
                with open(j(top, name), "rb") as file:
                    found[os.path.relpath(j(top, name), self.root)] = repr(file.read())
        return found


# What is left out of scripts that are to agree: each shows its difference in `test_differences.py`

_MAKERS = {
    # The operations that make names, and which of their arguments those are.
    "open": 1,
    "os_open": 1,
    "mkdir": 0,
    "path_mkdir": 0,
    "put": 0,
    "add": 0,
    "touch": 0,
    "put_atomically": 0,
    "rename": 1,
    "replace": 1,
    "copyfile": 1,
    "copy": 1,
    "copy2": 1,
    "copytree": 1,
    "move": 1,
    "abort": 0,
    "temporary": 0,
}


def parent_is_missing(world, operation):
    """Parents are implicit below a mount."""
    name, arguments = operation[0], operation[1:]
    if name in _MAKERS:
        path = bare(arguments[_MAKERS[name]]).rstrip("/")
        base = world.cwd if arguments[_MAKERS[name]].startswith("r:") else "."
        return not os.path.lexists(j(world.root, base, path if name == "temporary" else os.path.dirname(path)))
    return False


def source_s_parent_is_missing(world, operation):
    """Then a kernel fails before it looks at the target; here a missing source is found missing last."""
    if operation[0] in ("rename", "replace", "move"):
        base = world.cwd if operation[1].startswith("r:") else "."
        return not os.path.lexists(j(world.root, base, os.path.dirname(bare(operation[1]).rstrip("/"))))
    return False


def detour_is_missing(world, operation):
    """`x/..` is resolved as written, whether `x` is there or not."""
    for argument in operation[1:]:
        if type(argument) is str and "/.." in argument:
            base = world.cwd if argument.startswith("r:") else "."
            if not os.path.isdir(j(world.root, base, os.path.dirname(bare(argument)))):
                return True
    return False


def writes_where_no_file_can_be(world, operation):
    """Where nobody asks before writing, `open(path, "w")` of a directory or below a file fails when it is closed."""
    name, arguments = operation[0], operation[1:]
    writes = (name in ("open", "abort") and "w" in arguments[1 if name == "abort" else 2]) or name == "put"
    writes = writes or name in ("copyfile", "copy", "copy2", "move") or (name == "os_open" and "TRUNC" in arguments[2])
    if not writes:
        return False
    path = bare(arguments[_MAKERS[name]])
    base = world.cwd if arguments[_MAKERS[name]].startswith("r:") else "."
    path = j(world.root, base, path)
    return (os.path.isdir(path) and name not in ("copy", "copy2", "move")) or (
        path.endswith("/") or not os.path.isdir(os.path.dirname(path))
    )


def uses_a_directory_as_a_file(world, operation):
    """The descriptor of a directory is one in name only: EBADF instead of EISDIR."""
    return (
        operation[0]
        in ("os_read", "os_readv", "os_pread", "os_lseek", "os_pwrite", "os_writev", "os_fdopen", "os_ftruncate")
        and operation[1] in world.fds
        and stat.S_ISDIR(os.fstat(world.fds[operation[1]]).st_mode)
    )


def describes_a_directory(world, operation):
    """Directories have no attributes."""
    return operation[0] == "setxattr" and os.path.isdir(j(world.root, bare(operation[1])))


LEFT_OUT = (
    parent_is_missing,
    source_s_parent_is_missing,
    detour_is_missing,
    writes_where_no_file_can_be,
    uses_a_directory_as_a_file,
    describes_a_directory,
)


def agree(real, state):
    """What a disk says in an error is said here; that of `os.utime` names no file there."""
    if real.endswith("errno=%s" % real.rpartition("=")[2]) and state.startswith(real + " "):  # noqa: UP031
        return [real, real]
    return [real, state]


class Pair:
    """The same directory twice."""

    def __init__(self, real, state, name, as_turn):
        self.real = World(j(real, name))
        self.state = World(j(state, name))
        self.turn = None
        if as_turn:
            self.turn = asya_shim.Turn()
            self.turn.__enter__()

    def do(self, operation, everything):
        if not everything and any(left_out(self.real, operation) for left_out in LEFT_OUT):
            return []
        if operation[0] == "next_turn":
            if self.turn is None or self.state.files or self.state.fds:
                return []
            self.leave()
            self.turn = asya_shim.Turn()
            self.turn.__enter__()
            return ["None", "None"]
        return agree(self.real.do(operation), self.state.do(operation))

    def leave(self):
        turn, self.turn = self.turn, None
        if turn is not None:
            turn.commit()
            turn.__exit__(None, None, None)

    def end(self):
        closed = [[self.real.do(step), self.state.do(step)] for step in list(self.real.finish())]
        closed += [["nothing left", self.state.do(step)] for step in list(self.state.finish())]
        self.leave()
        with asya_shim.Turn():
            return {"closed": closed, "trees": [self.real.tree(), self.state.tree()]}


def main():
    assert asya_shim.activate_from_environment()
    real, state = sys.argv[1:3]
    os.makedirs(real, exist_ok=True)
    os.makedirs(state, exist_ok=True)
    os.chdir("/")
    pair = None
    for line in sys.stdin:
        command = json.loads(line)
        answer = None
        if "begin" in command:
            pair = Pair(real, state, command["begin"], command["turn"])
        if "do" in command:
            answer = [pair.do(operation, command.get("everything", False)) for operation in command["do"]]
        if "end" in command:
            answer = {"outcomes": answer, **pair.end()}
            shutil.rmtree(pair.real.root)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
