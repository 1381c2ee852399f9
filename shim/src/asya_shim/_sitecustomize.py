"""Copied to `lib/sitecustomize.py`: activates the shim in every Python that has `lib` on its path.

Then it hands on to the next `sitecustomize` there is, which the image may have brought along.
"""

import os
import sys


def _hand_on() -> None:
    """Run the next `sitecustomize` on `sys.path` as if this one were not there."""
    # What `importlib.machinery` and `importlib.util` show, without the dozen modules that those import.
    from _frozen_importlib_external import PathFinder

    here = os.path.realpath(os.path.dirname(__file__))
    others = [entry for entry in sys.path if os.path.realpath(entry or ".") != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is None or spec.loader is None:
        return
    from _frozen_importlib import module_from_spec

    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if os.environ.get("ASYA_STATE_PROXY_MOUNTS"):
    from asya_shim import activate_from_environment

    activate_from_environment()
_hand_on()
