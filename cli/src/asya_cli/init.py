"""`asya init`: manifest, handler and Dockerfile of an actor of one's own, ready for `asya run`."""

from __future__ import annotations

import string
from importlib.resources import files
from pathlib import Path

from asya_cli.errors import Missing, Refused
from asya_operator.api import ManifestError, load_manifest

FILES = ("actor.yaml", "agent.py", "Dockerfile")


def write_actor(name: str, directory: Path) -> list[Path]:
    """Write the files of actor `name` into `directory`; their paths.

    Raises:
        Refused: `name` cannot name an actor, or one of the files is there already; nothing is written then.
        Missing: the directory cannot be written to.
    """
    texts = {file: files("asya_cli").joinpath("templates", file).read_text("utf-8") for file in FILES}
    texts["actor.yaml"] = string.Template(texts["actor.yaml"]).substitute(name=name)
    try:
        load_manifest(texts["actor.yaml"], name)
    except ManifestError as error:
        raise Refused(f"the name of an actor: {error.problems[0].message}") from None
    paths = [directory / file for file in FILES]
    there = [str(path) for path in paths if path.exists() or path.is_symlink()]
    if there:
        raise Refused(f"{', '.join(there)}: already there; choose another name or --directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in paths:
            with path.open("x", encoding="utf-8") as f:
                f.write(texts[path.name])
    except OSError as error:
        raise Missing(f"{error.filename}: {error.strerror}") from None
    return paths
