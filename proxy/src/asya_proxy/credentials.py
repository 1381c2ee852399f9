"""A backend's credentials from a mounted Secret: files named like the variables they stand for.

Kubernetes replaces such files in place when the Secret changes, so whoever connects reads them anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from asya_proxy.errors import PermissionDenied

PATHS = frozenset({"GOOGLE_APPLICATION_CREDENTIALS", "NATS_CREDS_FILE"})
"""Variables whose value is the path of the file and not its content."""


def read(directory: str) -> Mapping[str, str]:
    """The variables in `directory`; none where there is no directory (an optional Secret that is not there).

    Raises PermissionDenied where the files cannot be read.
    """
    variables: dict[str, str] = {}
    try:
        for file in sorted(Path(directory).iterdir()):
            # Kubernetes keeps its versions in `..data` and `..2026_...` beside the names.
            if file.name.startswith(".") or not file.is_file():
                continue
            variables[file.name] = str(file) if file.name in PATHS else file.read_text("utf-8").rstrip("\r\n")
    except (FileNotFoundError, NotADirectoryError):
        return variables
    except (OSError, UnicodeDecodeError) as error:
        raise PermissionDenied(
            f"the credentials in {directory} cannot be read ({error}); check the Secret and the proxy's user"
        ) from error
    return variables


def fingerprint(directory: str) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever a file of `directory` does; empty where there is none."""
    try:
        files = [(file.name, file.stat()) for file in sorted(Path(directory).iterdir()) if file.is_file()]
    except OSError:
        return ()
    return tuple((name, stat.st_mtime_ns, stat.st_ino) for name, stat in files)
