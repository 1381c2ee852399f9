"""Runs the rows of one module here, in a real directory and below a mount, and prints JSON of what came out.

    python run.py MODULE REAL STATE

A cell "works" where its bytes are right: what the library wrote below the mount is copied out and read
by it from the disk; what it wrote to the disk is copied in and read by it below the mount. Each step is a
turn. Otherwise the cell "raises", and says what and which lines were logged, or it is "wrong".
"""

import importlib
import json
import logging
import os
import shutil
import sys
import traceback


class Lines(logging.Handler):
    """What the shim logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def put(source, target):
    """Copy a file, or all of a directory, by `open` alone. Not lock files: what is a lock in the kernel's eyes on a
    disk, and a file beside it, is a lock by being there below a mount."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
        for name in os.listdir(source):
            if not name.endswith(".lock"):
                put(os.path.join(source, name), os.path.join(target, name))
    else:
        with open(source, "rb") as f:
            data = f.read()
        with open(target, "wb") as f:
            f.write(data)


def use(row, call, path, by, mode):
    """Call `write` or `read` of a row with a path, or with a file object."""
    if by == "path":
        return call(path)
    with open(path, mode, **({"encoding": "utf-8", "newline": ""} if row.text else {})) as f:
        return call(f)


def value(row, path, by):
    """What is read from a path; of a row that does not read, the bytes that lie there."""
    if row.read is not None:
        return repr(use(row, row.read, path, by, "r" if row.text else "rb"))
    directory = os.path.dirname(path)
    found = {}
    for top, _, files in os.walk(directory):
        for name in files:
            with open(os.path.join(top, name), "rb") as f:
                found[os.path.relpath(os.path.join(top, name), directory)] = f.read()
    return repr(sorted(found.items()))


def cell(row, how, by, real, state, turn):
    """`(expected, seen)`; raises what the library raises below the mount."""
    made, back = os.path.join(real, "made", row.name), os.path.join(real, "back", row.name)
    there = os.path.join(state, row.name)
    for path in (made, back):
        os.makedirs(os.path.dirname(path))
    if row.make is not None and (how == "read" or row.write is None):
        row.make(made)
    else:
        use(row, row.write, made, by, row.mode)
    expected = value(row, made, by)
    with turn():
        os.makedirs(state)
        if how == "read":
            put(os.path.dirname(made), state)
    try:
        with turn():
            if how == "read":
                return expected, value(row, there, by)
            use(row, row.write, there, by, row.mode)
    except BaseException as error:
        error.below_the_mount = True
        raise
    with turn():
        put(state, os.path.dirname(back))
    return expected, value(row, back, by)


def outcome(row, how, by, real, state, turn, lines):
    """The JSON of one cell."""
    report = {"library": row.library, "what": row.what, "how": how, "by": by, "instead": row.instead}
    del lines[:]
    try:
        expected, seen = cell(row, how, by, real, state, turn)
    except Exception as error:
        kind = "raises" if getattr(error, "below_the_mount", False) else "broken"
        report.update(type=type(error).__name__, errno=getattr(error, "errno", None), text=str(error))
        report.update(trace=traceback.format_exc())
    else:
        kind = "works" if expected == seen else "wrong"
        report.update(expected=expected[:2000], seen=seen[:2000])
    report.update(outcome=kind, logged=list(lines))
    return report


def version(package):
    """Of an installed distribution; None of what comes with Python."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def main(module, real, state):
    import asya_shim

    assert asya_shim.activate_from_environment()
    handler = Lines()
    logging.getLogger("asya.shim").addHandler(handler)
    found = importlib.import_module(module)
    reports = []
    for number, row in enumerate(found.ROWS):
        for how, by in row.cells():
            name = f"{number}-{how}-{by}"
            paths = os.path.join(real, name), os.path.join(state, name)
            reports.append(outcome(row, how, by, *paths, asya_shim.turn, handler.lines))
    packages = getattr(found, "PACKAGES", {})
    print(json.dumps({"cells": reports, "versions": {library: version(name) for library, name in packages.items()}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    shutil.rmtree(sys.argv[2])
