"""The language model of the example: `chat(history) -> answer`.

With OPENAI_BASE_URL set, any OpenAI-compatible endpoint is asked (`{base}/chat/completions`).
Without it a small built-in responder answers, so that the example runs with no account and no
network; it is no language model, and each of its answers says so.

Variables: OPENAI_BASE_URL (such as https://api.openai.com/v1 or http://localhost:11434/v1),
OPENAI_API_KEY (sent if set), OPENAI_MODEL (default gpt-4o-mini), OPENAI_TIMEOUT (seconds, default 60).
"""

import http.client
import json
import os
import urllib.error
import urllib.request

Message = dict[str, str]

MAX_ANSWER = 4 * 2**20
"""Bytes of an answer that are read; more is an error."""


class ModelError(RuntimeError):
    """The endpoint could not be asked or gave no answer; the message names it and says what to check."""


def chat(history: list[Message]) -> str:
    """The assistant's answer to `history`, messages `{"role", "content"}`, oldest first.

    Raises:
        ModelError: the endpoint cannot be reached, refuses, or answers something else.
    """
    base = os.environ.get("OPENAI_BASE_URL", "").rstrip("/")
    if not base:
        return _built_in(history)
    return _ask(base, history)


def _ask(base: str, history: list[Message]) -> str:
    url = base + "/chat/completions"
    if not url.startswith(("http://", "https://")):
        raise ModelError(f"OPENAI_BASE_URL={base!r}: expected an http:// or https:// address")
    headers = {"Content-Type": "application/json"}
    key = os.environ.get("OPENAI_API_KEY", "")
    if key:
        headers["Authorization"] = "Bearer " + key
    body = json.dumps({"model": os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), "messages": history}).encode()
    request = urllib.request.Request(url, body, headers)  # noqa: S310 -- the scheme is checked above
    try:
        with urllib.request.urlopen(request, timeout=_timeout()) as answer:  # noqa: S310
            raw = answer.read(MAX_ANSWER + 1)
    except urllib.error.HTTPError as error:
        with error:
            detail = error.read(300).decode("utf-8", "replace").strip()
        hint = "; check OPENAI_API_KEY" if error.code in (401, 403) else ""
        raise ModelError(f"{url} answered {error.code} {error.reason}: {detail}{hint}") from error
    # A server that hangs up or speaks no HTTP raises HTTPException; the rest are OSErrors.
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise ModelError(f"{url} could not be asked ({reason}); check OPENAI_BASE_URL") from error
    if len(raw) > MAX_ANSWER:
        raise ModelError(f"{url} answered more than {MAX_ANSWER} bytes")
    try:
        content = json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{url} answered no chat completion: {raw[:200]!r}") from error
    if not isinstance(content, str):
        raise ModelError(f"{url} answered a message without text: {content!r}")
    return content


def _timeout() -> float:
    text = os.environ.get("OPENAI_TIMEOUT", "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise ModelError(f"OPENAI_TIMEOUT={text!r}: expected seconds, more than 0 and less than 3600")
    return seconds


def _built_in(history: list[Message]) -> str:
    """What a model with a perfect memory and nothing to say would answer: how much it remembers."""
    asked = [message["content"] for message in history if message["role"] == "user"]
    if len(asked) == 1:
        return "(built-in responder, no model) This is your first message."
    return f'(built-in responder, no model) This is message {len(asked)}; your first was "{asked[0]}".'
