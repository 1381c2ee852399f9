"""What is in the images that the chart installs: labels, no tools, no times, and not more than they may weigh."""

import gzip
import io
import json
import re
import struct
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rig.cluster import Cluster
from rig.images import saved

MB = 1_000_000
LIMITS = {"operator": 70 * MB, "proxy": 80 * MB}
TITLES = {"operator": "asya-operator", "proxy": "asya-state-proxy"}
# Package managers, compilers, shells: what an intruder would look for first.
TOOLS = re.compile(
    r"(?:^|/)(?:pip[\d.]*|apt|apt-get|dpkg|gcc|cc|c\+\+|g\+\+|ld|as|make|perl|sh|bash|dash|curl|wget|uv|hatchling)$"
)
UNCHECKED_HASH = 1


@dataclass(frozen=True)
class Layer:
    """One layer: its members, the bytes that its bytecode begins with, and little more than its size in a registry."""

    members: list[tarfile.TarInfo]
    bytecode: dict[str, bytes]
    compressed: int


def _layer(content: bytes) -> Layer:
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
        bytecode = {}
        for member in members:
            file = archive.extractfile(member) if member.name.endswith(".pyc") else None
            if file is not None:
                bytecode[member.name] = file.read(16)
    return Layer(members, bytecode, len(gzip.compress(content, 1)))


def _read(file: Path) -> tuple[dict[str, Any], list[Layer]]:
    """The configuration and the layers of `docker save`."""
    with tarfile.open(file) as archive:

        def member(name: str) -> bytes:
            found = archive.extractfile(name)
            assert found is not None
            return found.read()

        (manifest,) = json.loads(member("manifest.json"))
        return json.loads(member(manifest["Config"])), [_layer(member(name)) for name in manifest["Layers"]]


@pytest.mark.parametrize("part", ["operator", "proxy"])
def test_an_image_is_small_labelled_and_without_tools_or_times(
    kube: Cluster, images: Mapping[str, str], tmp_path: Path, part: str
) -> None:
    config, layers = _read(saved(kube, images[part], tmp_path / "image.tar"))
    labels = config["config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == TITLES[part]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    for name in ("description", "version", "revision", "created", "source"):
        assert f"org.opencontainers.image.{name}" in labels
    assert int(config["config"]["User"].split(":")[0]) > 0

    names = [member.name for layer in layers for member in layer.members if not member.isdir()]
    assert len(names) > 1000
    assert [name for name in names if TOOLS.search(name)] == []
    assert [name for name in names if "/pip/" in name or "/ensurepip/" in name] == []

    bytecode = {name: head for layer in layers for name, head in layer.bytecode.items()}
    assert len(bytecode) > 300
    assert {struct.unpack("<I", head[4:8])[0] for head in bytecode.values()} == {UNCHECKED_HASH}
    assert {member.mtime for layer in layers for member in layer.members if member.isfile()} == {0}
    assert [m.name for layer in layers for m in layer.members if m.isfile() and m.mode & 0o7022] == []

    compressed = sum(layer.compressed for layer in layers)
    print(f"{part}: {compressed / MB:.1f} MB compressed, {len(names)} files, layers {[x.compressed for x in layers]}")
    assert compressed <= LIMITS[part]
