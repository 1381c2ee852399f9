"""The command of the handler's container: `python3 run.py`, installed as /opt/asya/run.py beside `lib/`.

Readable by any Python, so that an unsupported one can be told so in one line. No module of ours is
importable from the directory of this file; those are in `lib/`, or two levels up in a source tree.
"""

import os
import sys


def _locate():
    # type: () -> str
    here = os.path.dirname(os.path.abspath(__file__))
    installed = os.path.join(here, "lib")
    return installed if os.path.isdir(installed) else os.path.dirname(here)


if __name__ == "__main__":
    if sys.version_info < (3, 9) or sys.implementation.name != "cpython":
        sys.exit(
            "asya: Python " + sys.version.split("\n")[0] + " is not supported: expected CPython 3.9 or newer; "
            "spec.pythonExecutable names the interpreter"
        )
    _lib = _locate()
    # The directory of this file is not the program's.
    sys.path[0] = os.getcwd()
    if _lib not in sys.path:
        sys.path.insert(1, _lib)
    _path = os.environ.get("PYTHONPATH")
    if _lib not in (_path or "").split(os.pathsep):
        os.environ["PYTHONPATH"] = _lib + (os.pathsep + _path if _path else "")

    from asya_runtime.main import main

    sys.exit(main(sys.argv[1:]))
