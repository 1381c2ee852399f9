"""The AsyncActor API: one model that validates a manifest everywhere.

`load_manifest` for text, `parse_actor` for a parsed body; both raise `ManifestError`. No I/O.
"""

from asya_operator.api.advice import warnings
from asya_operator.api.load import load_manifest, parse_actor
from asya_operator.api.model import AsyncActor, EnvVar, FurtherMount, Mounted, Resources, Spec, StateProxy
from asya_operator.api.problems import ManifestError, Problem

__all__ = [
    "AsyncActor",
    "EnvVar",
    "FurtherMount",
    "ManifestError",
    "Mounted",
    "Problem",
    "Resources",
    "Spec",
    "StateProxy",
    "load_manifest",
    "parse_actor",
    "warnings",
]
