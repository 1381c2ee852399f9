"""`asya-state-proxy install DIR`: what the handler's container needs, as plain files any uid can read.

`DIR/run.py`, and below `DIR/lib` the packages asya_contract, asya_shim and asya_runtime and `sitecustomize.py`.
Each file is replaced by rename and left alone where it is equal, so that a running handler never sees half of one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("asya_contract", "asya_shim", "asya_runtime")
_MARKERS = (".py", "py.typed")


class InstallError(Exception):
    """Something to be installed is missing, or the directory cannot be written; the message says what to do."""


def install(directory: Path) -> tuple[int, int]:
    """Bring `directory` up to date; how many files were written, and how many were equal.

    Raises:
        InstallError: the packages are not installed here, or `directory` cannot be written.
    """
    written = equal = 0
    for name, source in _files():
        try:
            changed = _replace(directory / name, source.read_bytes())
        except OSError as error:
            raise InstallError(
                f"cannot write {directory / name}: {error.strerror}; give a directory that can be"
            ) from error
        written += changed
        equal += not changed
    return written, equal


def _files() -> Iterator[tuple[str, Path]]:
    """Names below the directory, and where their content comes from; run.py last, for it begins to use the rest."""
    for package in PACKAGES:
        root = _source(package)
        for path in sorted(root.rglob("*")):
            if path.name.endswith(_MARKERS) and "__pycache__" not in path.parts:
                yield f"lib/{package}/{path.relative_to(root)}", path
    for name, package, source in (
        ("lib/sitecustomize.py", "asya_shim", "_sitecustomize.py"),
        ("run.py", "asya_runtime", "run.py"),
    ):
        path = _source(package) / source
        if not path.is_file():
            raise InstallError(f"{package} has no {source}; install asya-shim of the same release as asya-proxy")
        yield name, path


def _source(package: str) -> Path:
    # Found, not imported: importing the shim may activate it.
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InstallError(f"package {package} is not installed beside asya_proxy; install asya-shim")
    return Path(spec.submodule_search_locations[0])


def _replace(target: Path, content: bytes) -> bool:
    """Make `target` hold `content`, readable by all; False where it did."""
    if target.is_file() and not target.is_symlink() and target.read_bytes() == content:
        if target.stat().st_mode & 0o444 != 0o444:
            target.chmod(0o644)
        return False
    for parent in reversed([p for p in (target.parent, *target.parent.parents) if not p.exists()]):
        parent.mkdir(exist_ok=True)
        parent.chmod(0o755)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.chmod(0o644)
        fresh.rename(target)
    finally:
        fresh.unlink(missing_ok=True)
    return True
