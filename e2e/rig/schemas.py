"""The strict schemas of every supported Kubernetes, offline: what no version may refuse or overlook in an object."""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from rig.cluster import Object

_PLACE = files("kubernetes_validate") / "kubernetes-json-schema"
OLDEST = (1, 30)


def _versions() -> list[str]:
    """From the oldest that is supported, such as `1.30`, to the newest there is a schema of."""
    found = [re.fullmatch(r"v(\d+)\.(\d+)\.0-local-strict", place.name) for place in _PLACE.iterdir()]
    numbers = sorted((int(match[1]), int(match[2])) for match in found if match)
    return [f"{major}.{minor}" for major, minor in numbers if (major, minor) >= OLDEST]


VERSIONS = _versions()


class Schemas:
    """Those of one version, read once."""

    def __init__(self, version: str) -> None:
        self._place = _PLACE / f"v{version}.0-local-strict"
        definitions = self._read("_definitions.json")
        self._registry: Registry[Any] = Resource.from_contents(definitions) @ Registry()
        self.validator = cache(self._validator)

    def errors(self, body: Object) -> list[tuple[str, str]]:
        """What is wrong with an object: place and words.

        Raises:
            FileNotFoundError: the version does not have this kind in this group and version.
        """
        found = self.validator(body["apiVersion"], body["kind"]).iter_errors(body)
        return [(".".join(map(str, error.absolute_path)), error.message[:200]) for error in found]

    def _validator(self, api_version: str, kind: str) -> Draft202012Validator:
        group, _, version = api_version.rpartition("/")
        name = "-".join([kind.lower(), *([group.split(".")[0]] if group else []), version])
        return Draft202012Validator(self._read(f"{name}.json"), registry=self._registry)

    def _read(self, name: str) -> Any:
        return json.loads((self._place / name).read_text())
