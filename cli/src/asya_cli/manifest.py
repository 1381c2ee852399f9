"""Reads the manifest a command is about, and picks the actor that is meant."""

from __future__ import annotations

from pathlib import Path

from asya_cli.errors import Refused
from asya_operator.api import AsyncActor, ManifestError, load_manifest


def read_actor(path: Path, name: str | None = None) -> AsyncActor:
    """The AsyncActor in the file `path`; with several of them, the one called `name`.

    Raises:
        Refused: the file cannot be read, is no manifest of ours, or leaves open which actor is meant.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refused(f"{path}: {reason}; expected a manifest of kind AsyncActor") from None
    try:
        actors = load_manifest(text, str(path))
    except ManifestError as error:
        raise Refused(str(error)) from None
    if name is not None:
        actors = [actor for actor in actors if actor.name == name]
        if not actors:
            raise Refused(f"{path}: no AsyncActor is called {name!r}")
    if len(actors) > 1:
        raise Refused(f"{path}: which one? --actor {', --actor '.join(actor.name for actor in actors)}")
    return actors[0]
