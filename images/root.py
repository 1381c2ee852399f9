"""The root of an image: Python, one virtual environment, and the shared libraries that these two load; nothing else.

Runs in the build stage of the Dockerfiles, with the standard library alone:

    python3 images/root.py /opt/venv /out --import MODULE [MODULE ...]

`/out` gets one directory for each layer, the one that changes least first: `system`, `packages`, `ours`. What is not
listed here is not in the image: no shell, no package manager, no compiler. Every file has the time SOURCE_DATE_EPOCH,
and bytecode is checked against no time, so that two builds of the same sources have equal layers.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

# Parts of the standard library that want a screen, a compiler or an index of packages.
STDLIB_WITHOUT = (
    "config-*",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tkinter",
    "turtle.py",
    "turtledemo",
    "*/_ctypes_test*",
    "*/_test*",
    "*/_tkinter*",
    "*/_xxtestfuzz*",
)

# What botocore describes of the services that the S3 store and the SDK's own ways to credentials call.
AWS_SERVICES = ("s3", "sts", "sso", "sso-oidc", "signin")

# Below site-packages: (what goes, but not what one of these patterns keeps).
PACKAGES_WITHOUT: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("botocore/data/*/*", tuple(f"botocore/data/{name}/*" for name in AWS_SERVICES)),
    ("boto3/data/*/*", ("boto3/data/s3/*",)),
    ("boto3/examples/*", ()),
    # A wheel or an installer may bring some; those that a start reads are made here.
    ("*.pyc", ()),
    ("*.pyi", ()),
    ("*.pyx", ()),
    ("*.pxd", ()),
    ("*.c", ()),
    ("*.h", ()),
)

# Of the base: certificates of authorities, time zones, names of ports and users.
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
SYSTEM_FILES = (
    AUTHORITIES.lstrip("/"),
    "etc/nsswitch.conf",
    "etc/os-release",
    "usr/lib/os-release",
    "usr/lib/ssl/cert.pem",
    "usr/lib/ssl/certs",
    "usr/lib/ssl/openssl.cnf",
    "etc/ssl/openssl.cnf",
    "etc/services",
    "usr/share/zoneinfo",
)
OURS = ("asya_*",)

# Programs of the image's Python: list the sources of what some modules import; compile such a list.
LOADED = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
files = {(m.__cached__, m.__file__) for m in sys.modules.values() if getattr(m, "__cached__", None)}
for cached, source in sorted(files):
    print(cached, source, sep="|")
"""
COMPILE = """
import py_compile, sys
for line in sys.stdin:
    cached, source = line.rstrip().split("|")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(source, cached, source, doraise=True, invalidation_mode=mode)
"""


def main() -> None:
    """Parse the arguments and make the root."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("venv", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--import", dest="modules", nargs="+", required=True, help="modules that a start imports")
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    site = next((options.venv / "lib").glob("python3.*/site-packages"))
    trim(site)
    for path in Path(sysconfig.get_path("stdlib")).rglob("*.pyc"):  # left there by the installer
        path.unlink()
    python = options.venv / "bin" / "python3"
    compiled = bytecode(python, options.modules)
    system, packages, ours = (options.out / name for name in ("system", "packages", "ours"))
    copy_python(system)
    copy_system(system, options.uid, [*shared_objects(options.venv), *shared_objects(system)])
    place(options.venv, packages)
    split(packages, packages / site.relative_to("/"), ours)
    for path in compiled:
        if not any((layer / path.relative_to("/")).exists() for layer in (system, packages, ours)):
            raise SystemExit(f"{path} is imported and in no layer")
    for layer in (system, packages, ours):
        settle(layer, int(os.environ.get("SOURCE_DATE_EPOCH", "0")))


def unwanted(name: str) -> bool:
    """Whether a file of site-packages, by its relative name, stays out of the image."""
    for pattern, kept in PACKAGES_WITHOUT:
        if fnmatch(name, pattern) and not any(fnmatch(name, keep) for keep in kept):
            return True
    return False


def trim(site: Path) -> None:
    """Remove what no image needs from site-packages, and the directories that are empty then."""
    for path in sorted(site.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif unwanted(path.relative_to(site).as_posix()):
            path.unlink()


def bytecode(python: Path, modules: Iterable[str]) -> list[Path]:
    """Compile what importing `modules` reads, the standard library's too, which the base leaves out; the files.

    In a process of its own: what the compiler writes depends on which constants the process has met before."""
    clean = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    told = subprocess.run([python, "-c", LOADED, *modules], check=True, capture_output=True, text=True, env=clean)
    subprocess.run([python, "-c", COMPILE], input=told.stdout, check=True, text=True, env=clean)
    return [Path(line.partition("|")[0]) for line in told.stdout.splitlines()]


def copy_python(root: Path) -> None:
    """The interpreter and its standard library."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    program = Path(sys.executable).resolve()
    for path in [*walk(stdlib, STDLIB_WITHOUT), program, program.with_name("python3"), program.with_name("python")]:
        if path.is_symlink() or path.exists():
            place(path, root)


def walk(top: Path, without: tuple[str, ...]) -> Iterator[Path]:
    """All files below `top`, but those of names or relative names that match `without`."""
    for path in sorted(top.rglob("*")):
        name = path.relative_to(top).as_posix()
        parts = path.relative_to(top).parts
        if any(fnmatch(name, pattern) or fnmatch(parts[0], pattern) for pattern in without):
            continue
        if path.is_symlink() or path.is_file():
            yield path


def shared_objects(top: Path) -> list[Path]:
    """All programs and libraries below `top`."""
    found = []
    for path in sorted(top.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
            found.append(path)
    return found


def needed(objects: Iterable[Path]) -> set[Path]:
    """The libraries of the base that the loader finds for them."""
    told = subprocess.run(["ldd", *map(str, objects)], check=False, capture_output=True, text=True).stdout
    lost = sorted({line.split()[0] for line in told.splitlines() if "not found" in line})
    if lost:
        raise SystemExit(f"libraries that no package of the base brings: {', '.join(lost)}")
    return {Path(name) for name in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", told, re.M)}


def copy_system(root: Path, uid: int, objects: Iterable[Path]) -> None:
    """Libraries with the loader's list of them, certificates, users, and what scanners read of Debian's packages."""
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            place(Path("/", name), root)
    libraries = sorted(path for path in needed(objects) if not path.is_relative_to("/opt"))
    for path in libraries:
        for step in links(path):
            place(step, root)
    for path in (Path("/", name) for name in SYSTEM_FILES):
        if path.exists():
            place(path, root)
    # Where OpenSSL itself looks for them; not every base has it.
    authorities = root / ssl.get_default_verify_paths().openssl_cafile.lstrip("/")
    if not authorities.is_symlink() and not authorities.exists():
        authorities.parent.mkdir(parents=True, exist_ok=True)
        authorities.symlink_to(AUTHORITIES)
    users = (("root", 0), ("asya", uid))
    (root / "etc" / "passwd").write_text("".join(f"{name}:x:{i}:{i}:{name}:/:/sbin/nologin\n" for name, i in users))
    (root / "etc" / "group").write_text("".join(f"{name}:x:{i}:\n" for name, i in users))
    (root / "tmp").mkdir()
    for name in ("etc/ld.so.conf", "etc/ld.so.conf.d"):
        place(Path("/", name), root)
    subprocess.run(["ldconfig", "-X", "-r", root], check=True)
    shutil.rmtree(root / "var" / "cache" / "ldconfig", ignore_errors=True)
    describe(root, libraries)


def links(path: Path) -> Iterator[Path]:
    """The links that lead from `path` to a file, and the file; each in a directory that is no link."""
    while True:
        path = path.parent.resolve() / path.name
        yield path
        if not path.is_symlink():
            return
        path = path.parent / path.readlink()


def describe(root: Path, libraries: Iterable[Path]) -> None:
    """`var/lib/dpkg/status.d`: which package each library is of, so that scanners for vulnerabilities see it."""
    status = root / "var" / "lib" / "dpkg" / "status.d"
    status.mkdir(parents=True)
    names = {name for path in libraries for name in (path, path.resolve())}
    told = subprocess.run(["dpkg-query", "-S", *map(str, sorted(names))], check=False, capture_output=True, text=True)
    packages = {line.split(":")[0] for line in told.stdout.splitlines() if not line.startswith("diversion")}
    for package in sorted(packages | {"ca-certificates", "tzdata"}):
        told = subprocess.run(["dpkg-query", "-s", package], check=True, capture_output=True, text=True)
        (status / package).write_text(told.stdout)


def place(path: Path, root: Path) -> None:
    """Copy a file, link or tree to its place below `root`; links stay links."""
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
    elif not (target.is_symlink() or target.exists()):
        shutil.copy2(path, target, follow_symlinks=False)


def split(packages: Path, site: Path, ours: Path) -> None:
    """Move our own packages into the layer that changes most."""
    for path in sorted(site.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in OURS):
            target = ours / path.relative_to(packages)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)


def settle(root: Path, when: int) -> None:
    """Give everything the same time and no more permissions than it needs."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & 0o111
            path.chmod(0o755 if runs else 0o644)
        os.utime(path, (when, when), follow_symlinks=False)
    if (root / "tmp").is_dir():
        (root / "tmp").chmod(0o1777)


if __name__ == "__main__":
    main()
