"""`run.py FILE ARGS` and `run.py -m MODULE ARGS`: any program, as `python` would run it, with the shim active."""

import builtins
import os
import runpy
import sys
import types
from typing import List


def run(arguments: List[str]) -> None:
    """Run the program as `__main__`; returns when its code has ended, raises what it raises."""
    if arguments[0] == "-m":
        if len(arguments) < 2:
            raise SystemExit("usage: run.py -m MODULE [ARGS...]")
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    path = arguments[0]
    if not os.path.exists(path):
        raise SystemExit(f"run.py: no such file: {path!r} (in {os.getcwd()}); expected FILE or -m MODULE")
    sys.argv = list(arguments)
    if os.path.isdir(path) or not path.endswith(".py"):
        # A directory or archive with a `__main__`, or compiled code.
        runpy.run_path(path, run_name="__main__")
        return
    # Not `runpy`: its module is gone when the program's threads and exit functions still run.
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    module = types.ModuleType("__main__")
    module.__file__ = path
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    with open(path, "rb") as source:
        code = compile(source.read(), path, "exec")
    exec(code, module.__dict__)  # noqa: S102
