"""`--backend`: where the state of a local run lies, as a value of STATE_BACKEND and its variables.

    sqlite               databases in the state directory (the default)
    manifest             backend and bucket of the manifest, credentials from the local environment
    sqlite:///DIR        databases in DIR
    redis://, rediss://  a Redis; ?bucket=NAME is the key namespace
    nats://, tls://      a NATS server; ?bucket=NAME is the KV bucket
    s3://BUCKET          ?endpoint=URL&region=NAME
    gcs://BUCKET, gs://  ?endpoint=URL
    memory:              the proxy's memory, gone when it ends

Where a URL names no bucket, the manifest's is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from asya_cli.errors import Refused

SQLITE_DATABASE = "state"
"""One database for all actors of a state directory: their prefixes keep them apart."""
DEFAULT_STATE_DIR = "./.asya/state"
_CHOICES = "sqlite, manifest, sqlite:///DIR, redis://HOST, nats://HOST, s3://BUCKET, gcs://BUCKET or memory:"


@dataclass(frozen=True, slots=True)
class Backend:
    """`kind` of STATE_BACKEND, its `bucket` ("": the manifest's), the SDK's `variables`, and words for people."""

    kind: str
    bucket: str
    words: str
    variables: Mapping[str, str] = field(default_factory=dict)


def endpoint_variables(kind: str, endpoint: str | None, region: str | None = None) -> dict[str, str]:
    """`endpoint` and `region` of a manifest or a URL as the variables that the backend's own SDK reads."""
    names = {"s3": "AWS_ENDPOINT_URL", "gcs": "STORAGE_EMULATOR_HOST", "redis": "REDIS_URL", "nats": "NATS_URL"}
    variables = {names[kind]: endpoint} if endpoint and kind in names else {}
    return variables | ({"AWS_REGION": region} if region and kind == "s3" else {})


def parse_backend(text: str, state_dir: str) -> Backend | None:
    """The backend that `--backend text` means; None for `manifest`. Directories become absolute.

    Raises:
        Refused: the text is none of the forms above.
    """
    if text == "manifest":
        return None
    if text == "sqlite":
        return _sqlite(state_dir)
    if text in ("memory", "memory:"):
        return Backend("memory", "memory", "the proxy's memory, gone when it ends")
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError as error:
        raise Refused(f"--backend {text!r}: {error}") from None
    parser = _PARSERS.get(url.scheme)
    if parser is None:
        raise Refused(f"--backend {text!r}: expected {_CHOICES}")
    return parser(url, text)


def _sqlite(directory: str) -> Backend:
    return Backend("sqlite", SQLITE_DATABASE, f"SQLite in {directory}", {"SQLITE_DIR": os.path.abspath(directory)})


def _sqlite_url(url: SplitResult, text: str) -> Backend:
    if url.netloc or not url.path.strip("/"):
        raise Refused(f"--backend {text!r}: expected sqlite:///DIR with an absolute directory")
    return _sqlite(unquote(url.path))


def _server_url(kind: str) -> Callable[[SplitResult, str], Backend]:
    def parse(url: SplitResult, text: str) -> Backend:
        if not url.hostname:
            raise Refused(f"--backend {text!r}: the host is missing, as in {kind}://localhost")
        # `bucket` is ours; the rest of the query belongs to the client library.
        query = parse_qsl(url.query, keep_blank_values=True)
        bucket = dict(query).get("bucket", "")
        rest = urlencode([(name, value) for name, value in query if name != "bucket"])
        server = url._replace(query=rest).geturl()
        shown = url._replace(netloc=url.netloc.rpartition("@")[2], query="").geturl()
        return Backend(kind, bucket, shown, endpoint_variables(kind, server))

    return parse


def _bucket_url(kind: str, options: tuple[str, ...]) -> Callable[[SplitResult, str], Backend]:
    def parse(url: SplitResult, text: str) -> Backend:
        if not url.netloc or url.path.strip("/"):
            raise Refused(f"--backend {text!r}: expected {url.scheme}://BUCKET without a path")
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        unknown = sorted(set(query) - set(options))
        if unknown:
            raise Refused(f"--backend {text!r}: {unknown[0]!r} is none of the options {', '.join(options)}")
        at = f" at {query['endpoint']}" if query.get("endpoint") else ""
        variables = endpoint_variables(kind, query.get("endpoint"), query.get("region"))
        return Backend(kind, url.netloc, f"{url.scheme}://{url.netloc}{at}", variables)

    return parse


_PARSERS: dict[str, Callable[[SplitResult, str], Backend]] = {
    "sqlite": _sqlite_url,
    "redis": _server_url("redis"),
    "rediss": _server_url("redis"),
    "nats": _server_url("nats"),
    "tls": _server_url("nats"),
    "s3": _bucket_url("s3", ("endpoint", "region")),
    "gcs": _bucket_url("gcs", ("endpoint",)),
    "gs": _bucket_url("gcs", ("endpoint",)),
}
