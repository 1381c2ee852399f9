"""Golden files: what a user sees, kept in a file beside the test and reviewed like code."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Golden:
    """`directory` holds the files; with `update` they are written instead of compared."""

    directory: Path
    update: bool

    def check(self, name: str, text: str) -> None:
        """`text` is what the file `name` holds."""
        path = self.directory / name
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing: run pytest --update, then review what it wrote"
        wanted = path.read_text(encoding="utf-8")
        assert text == wanted, f"{path} differs: if the change is meant, run pytest --update and review it"
