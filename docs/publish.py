"""Mkdocs hook: the source of each page beside its HTML, where llms.txt links to."""

import shutil
from pathlib import Path
from typing import Any


def on_post_build(config: Any) -> None:
    docs, site = Path(config["docs_dir"]), Path(config["site_dir"])
    for page in docs.rglob("*.md"):
        target = site / page.relative_to(docs)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, target)
