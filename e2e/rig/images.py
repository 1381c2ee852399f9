"""The images of a session: built once for each state of what goes into them, and brought to the cluster's node."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rig.cluster import ROOT, Cluster
from support.binaries import binary

IMAGE_SH = ROOT / "e2e" / "image.sh"
BUILD_SECONDS = 900
EXAMPLE = ROOT / "examples" / "chat-agent"


@dataclass(frozen=True)
class Source:
    """What an image is made of: a Dockerfile, its stage, and the files of its context that count."""

    name: str
    dockerfile: Path
    inputs: tuple[Path, ...]
    context: tuple[Path, ...] = ()
    stage: str | None = None

    def tag(self) -> str:
        """A full name whose tag is the hash of everything that goes in."""
        digest = hashlib.sha256()
        for path in sorted({self.dockerfile, *_files(self.inputs)}):
            digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_mode & 0o111}\0".encode())
            digest.update(path.read_bytes())
        return f"docker.io/library/{self.name}:{digest.hexdigest()[:12]}"


def _files(places: Iterable[Path]) -> Iterable[Path]:
    for place in places:
        if place.is_file():
            yield place
        for path in place.rglob("*") if place.is_dir() else ():
            if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith(".pyc"):
                yield path


APP = ROOT / "e2e" / "app"
_APP_FILES = (APP, EXAMPLE / "agent.py", EXAMPLE / "llm.py")
_LOCK, _ROOT = ROOT / ".ci" / "build.lock", ROOT / "images"

_BACKENDS = ROOT / "e2e" / "backends" / "Dockerfile"
_SERVERS = (ROOT / "tests" / "servers" / "build.sh", ROOT / "tests" / "servers" / "gcs")

SOURCES = {
    "operator": Source(
        "asya-operator",
        ROOT / "Dockerfile.operator",
        (_LOCK, _ROOT, ROOT / "shim", ROOT / "operator"),
    ),
    "proxy": Source("asya-state-proxy", ROOT / "Dockerfile.proxy", (_LOCK, _ROOT, ROOT / "shim", ROOT / "proxy")),
    "plain": Source("asya-e2e-plain", APP / "Dockerfile", _APP_FILES, _APP_FILES, "plain"),
    "directory": Source("asya-e2e-directory", APP / "Dockerfile", _APP_FILES, _APP_FILES, "directory"),
    "entrypoint": Source("asya-e2e-entrypoint", APP / "Dockerfile", _APP_FILES, _APP_FILES, "entrypoint"),
    "redis": Source("asya-e2e-redis", _BACKENDS, (), (_BACKENDS,), "redis"),
    "nats": Source("asya-e2e-nats", _BACKENDS, (), (_BACKENDS,), "nats"),
    "s3": Source("asya-e2e-s3", _BACKENDS, _SERVERS, (binary("versitygw"),), "s3"),
    "gcs": Source("asya-e2e-gcs", _BACKENDS, _SERVERS, (binary("gcsd"),), "gcs"),
}


def images(cluster: Cluster) -> dict[str, str]:
    """All images on the cluster's node; their names by those of SOURCES."""
    return {name: _present(cluster, source) for name, source in SOURCES.items()}


def renamed(cluster: Cluster, name: str, suffix: str) -> str:
    """The same image on the node under another tag, as the next release would bring it."""
    other = f"{name}-{suffix}"
    _run(cluster, "tag", name, other)
    _load(cluster, other)
    return other


def saved(cluster: Cluster, name: str, file: Path) -> Path:
    """The image in one file, as `docker save` writes it."""
    _run(cluster, "save", name, str(file))
    return file


def _run(cluster: Cluster, *args: str, deadline: float = 60, check: bool = True) -> int:
    environment = {**os.environ, "ASYA_IMAGES": "local" if cluster.local else "docker"}
    done = subprocess.run([IMAGE_SH, *args], env=environment, timeout=deadline, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"image.sh {' '.join(args)}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.returncode


def _load(cluster: Cluster, name: str) -> None:
    """To the nodes of kind; a local cluster has it."""
    if not cluster.local:
        kind = cluster.kubectl("config", "current-context").strip().removeprefix("kind-")
        subprocess.run(["kind", "load", "docker-image", "--name", kind, name], check=True, timeout=BUILD_SECONDS)


def _present(cluster: Cluster, source: Source) -> str:
    tag = source.tag()
    if _run(cluster, "has", tag, check=False) != 0:
        stage = ["--target", source.stage] if source.stage else []
        with tempfile.TemporaryDirectory(prefix="asya-context-") as place:
            context = _context(source, Path(place))
            _run(cluster, "build", tag, str(context), "-f", str(source.dockerfile), *stage, deadline=BUILD_SECONDS)
    if cluster.fresh:
        _run(cluster, "only", tag, check=False)  # there may be no other
    _load(cluster, tag)
    return tag


def _context(source: Source, place: Path) -> Path:
    """The directory an image is built from: the project itself, or only what a test image is made of."""
    if not source.context:
        return ROOT
    for item in source.context:
        if item.is_dir():
            shutil.copytree(item, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(item, place)
    return place
