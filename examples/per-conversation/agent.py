"""One state file per conversation: the session is part of the path."""

import json
import re
from pathlib import Path
from typing import Any

STATE = Path("/state")
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Notebook:
    """Keeps what each session said and answers with what it knows of that session alone."""

    def process(self, payload: dict[str, Any]) -> dict[str, Any]:
        """`{"session", "prompt"}` in; the same with `response` and `turns` out."""
        session = payload["session"]
        # A session names a directory: whatever a client sends must not name another one.
        if not isinstance(session, str) or not _SESSION.fullmatch(session):
            raise ValueError(f"session {session!r}: expected 1 to 64 letters, digits, - or _")
        path = f"/state/{session}/history.json"
        try:
            with open(path) as f:
                history = json.load(f)
        except FileNotFoundError:
            history = []
        history.append({"role": "user", "content": payload["prompt"]})
        said = [message["content"] for message in history if message["role"] == "user"]
        response = f"Session {session}, message {len(said)}. So far: " + " / ".join(said)
        history.append({"role": "assistant", "content": response})
        with open(path, "w") as f:
            json.dump(history, f)
        return {**payload, "response": response, "turns": len(said)}

    def sessions(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Which sessions there are: directories need no making and no index."""
        return {**payload, "sessions": sorted(entry.name for entry in STATE.iterdir() if entry.is_dir())}
