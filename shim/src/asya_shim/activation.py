"""Turning the shim on and off: mounts from the environment, hooks into their places, and back.

Standard error and status 78 tell of a bad environment, because a program that would write to a disk
instead must not run.
"""

from __future__ import annotations

import os
import sys

from asya_shim import endings, forks, nodes, original, paths, table
from asya_shim.environment import read_environment
from asya_shim.paths import MountPoint
from asya_shim.remote import Remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping, NoReturn

BAD_ENVIRONMENT = 78
"""EX_CONFIG of sysexits.h."""


def activate(environ: Mapping[str, str]) -> bool:
    """Install mounts and hooks; whether there are any. Does nothing the second time."""
    if paths.mounts:
        return True
    try:
        return _activate(environ)
    except Exception:
        # `site` would print this and go on without us.
        import traceback

        _refuse(traceback.format_exc())


def _refuse(text: str) -> NoReturn:
    """End the process. Not by SystemExit: while `site` runs, Python makes status 1 of that."""
    sys.stderr.write(text)
    sys.stderr.flush()
    os._exit(BAD_ENVIRONMENT)


def _activate(environ: Mapping[str, str]) -> bool:
    try:
        env, mounts = read_environment(environ)
    except ValueError as error:
        _refuse(f"asya: {error}\n")
    if not mounts:
        return False
    nodes.max_file_size = env.max_file_size
    points = []
    for mount in mounts:
        # Major number 0 is that of file systems without a device; the minor number tells mounts apart.
        device = 0x41530000 | int.from_bytes(mount.name.encode(), "big") % 65521
        points.append(MountPoint(mount.name, mount.path, Remote(mount, env), device))
    paths.set_mounts(points)
    endings.install()
    forks.install()
    table.install()
    _adopt_working_directory()
    return True


def _adopt_working_directory() -> None:
    """Where an image's working directory is the mount path itself, relative paths are state paths."""
    try:
        place = paths.locate(original.getcwd())
    except OSError:
        return  # it was removed
    if place is not None:
        paths.set_cwd(place.path)


def deactivate() -> None:
    """Store what is open, and give every function back. Files that are open stay usable until closed."""
    if not paths.mounts:
        return
    from asya_shim.hooks import HOOKS

    if paths.cwd is not None:
        HOOKS.chdir("/")
    table.uninstall()
    forks.uninstall()
    endings.uninstall()
    points = list(paths.mounts)
    paths.set_mounts([])
    for point in points:
        point.remote.close()
