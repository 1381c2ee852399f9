"""How the GCS store reaches its endpoint: credentials, one session, and what its failures mean.

The only place that knows the exceptions of Google's libraries; no operation on a state file is here.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import aiohttp
import google.auth
import google.oauth2.credentials as oauth2
import requests
from google.api_core.exceptions import GoogleAPICallError
from google.auth import identity_pool
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError, MutualTLSChannelError
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage import Client
from google.cloud.storage.exceptions import InvalidResponse
from google.oauth2 import service_account
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from asya_proxy import errors, tracing
from asya_proxy.errors import StoreError, Unavailable
from asya_proxy.stores import http_link
from asya_proxy.stores.http_link import Route

# Else the library asks for the bucket's metadata from a thread of its own, to name its place in traces.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
CONNECT_TIMEOUT = 3.0
LONGEST_ERROR = 1 << 16
"""Bytes of an error that are read: it repeats the object's name, in which each `&` takes five."""
SLOW_TIMEOUT = 30.0
"""Seconds that a server-side copy or the last part of an upload may take without a sign of life."""


Fetch = Callable[..., Any]
"""How tokens are asked for: a `google.auth.transport.requests.Request`."""


class Refused(Exception):
    """An answer of the XML API, or of an upload session, that is no success."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code


SDK_ERRORS = (
    GoogleAPICallError,
    GoogleAuthError,
    InvalidResponse,
    requests.RequestException,
    HTTPError,
    Refused,
    *http_link.ERRORS,
)
"""Everything that a call may raise, the library's or one of `gcs_objects`; `translate` takes them."""


def endpoint(environ: Mapping[str, str]) -> str | None:
    """The emulator's address, None for GCS itself."""
    host = environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    return host if not host or "://" in host else f"http://{host}"


def credentials(environ: Mapping[str, str]) -> Credentials:
    """None for the emulator, else those of GOOGLE_APPLICATION_CREDENTIALS (a file, or its content), else the pod's own.

    Raises GoogleAuthError, ValueError.
    """
    if endpoint(environ):
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    given = environ.get("GOOGLE_APPLICATION_CREDENTIALS", "").strip()
    if not given:
        found: Credentials = google.auth.default(scopes=[SCOPE])[0]
        return found
    try:
        info = json.loads(given if given.startswith("{") else Path(given).read_text())
    except OSError as error:
        raise ValueError(str(error)) from error
    kind = info.get("type")
    # By type and not by the library's general loader: that would also run a program which a file names.
    makers: dict[str, Any] = {
        "service_account": service_account.Credentials.from_service_account_info,
        "authorized_user": oauth2.Credentials.from_authorized_user_info,
        "external_account": identity_pool.Credentials.from_info,
    }
    if kind not in makers:
        raise ValueError(f"credentials of type {kind!r}: expected one of {', '.join(makers)}")
    made: Credentials = makers[kind](info, scopes=[SCOPE])
    return made


def new_token(environ: Mapping[str, str], fetch: Fetch, *, refused: bool) -> Credentials:
    """The credentials as they are given by now, with a token. `refused`: the last one was, so one that is still good
    will not do. Blocking. Raises GoogleAuthError, ValueError."""
    identity: Any = credentials(environ)
    if refused or not identity.valid:
        identity.refresh(fetch)
    return identity  # type: ignore[no-any-return]


def given(environ: Mapping[str, str]) -> tuple[object, ...]:
    """Changes whenever what the credentials are made of does, as far as that can be seen from here."""
    name = environ.get("GOOGLE_APPLICATION_CREDENTIALS", "").strip()
    try:
        stat = os.stat(name)
    except (OSError, ValueError):
        return (endpoint(environ), name)
    return (endpoint(environ), name, stat.st_mtime_ns, stat.st_ino, stat.st_size)


class _Adapter(HTTPAdapter):
    """Tells whose request it is."""

    def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
        request.headers.update(tracing.headers())


def make_client(environ: Mapping[str, str], *, connections: int) -> tuple[Client, AuthorizedSession]:
    """Blocking: call it in a thread. The session is the client's own. Raises GoogleAuthError, ValueError."""
    identity = credentials(environ)
    # Of its own it would fetch a token for each request that is refused.
    session = AuthorizedSession(identity, refresh_status_codes=())  # type: ignore[no-untyped-call]
    adapter = _Adapter(pool_connections=4, pool_maxsize=connections, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    custom = endpoint(environ)
    client = Client(
        project=environ.get("GOOGLE_CLOUD_PROJECT") or "none",  # only operations on buckets need one
        credentials=identity,
        client_options={"api_endpoint": custom} if custom else None,
        _http=session,
    )
    return client, session


def route(url: str) -> Route:
    """The way that the library's session would take to `url`."""
    bundle = (
        os.environ.get("REQUESTS_CA_BUNDLE")
        or os.environ.get("CURL_CA_BUNDLE")
        or requests.utils.DEFAULT_CA_BUNDLE_PATH
    )
    directory = Path(bundle).is_dir()
    tls = ssl.create_default_context(cafile=None if directory else bundle, capath=bundle if directory else None)
    return http_link.route(tls, select_proxy(url, get_environ_proxies(url)))


def refusal_of(answer: requests.Response) -> Refused:
    """The error of an XML or JSON answer."""
    return refusal(answer.status_code, answer.content)


def refusal(status: int, body: bytes) -> Refused:
    """The error of an XML or JSON answer."""
    text = body[:LONGEST_ERROR].decode("utf-8", "replace")
    try:
        if text.lstrip().startswith("{"):
            error = json.loads(text)["error"]
            reasons = error.get("errors") or [{}]
            return Refused(status, str(reasons[0].get("reason", "")), str(error.get("message", "")))
        tree = ElementTree.fromstring(text)  # noqa: S314  # the backend's own answer, of bounded length
        return Refused(status, tree.findtext("Code") or "", tree.findtext("Message") or "")
    except (ValueError, KeyError, TypeError, ElementTree.ParseError):
        return Refused(status, "", text[:200])


def status_of(error: BaseException) -> int:
    """The HTTP status, 0 where there was no answer."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, GoogleAPICallError):
        return int(error.code or 0)
    if isinstance(error, InvalidResponse):
        return int(error.response.status_code)
    return 0


def code_of(error: BaseException) -> str:
    """The reason that the answer gives, in the words of its API."""
    if isinstance(error, Refused):
        return error.code
    answer = getattr(error, "response", None)
    return refusal_of(answer).code if isinstance(answer, requests.Response) else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it wraps, as cause, context, argument or `reason`."""
    seen: set[int] = set()
    open_ = [error]
    while open_:
        one = open_.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner: list[Any] = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        open_ += [item for item in inner if isinstance(item, BaseException)]


def never_sent(error: BaseException) -> bool:
    """Whether the connection was not even made."""
    return any(isinstance(one, (NewConnectionError, ConnectTimeoutError)) for one in _causes(error))


_RATE_REASONS = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "TooManyRequests", "SlowDown"})

_CHECK = "check STORAGE_EMULATOR_HOST, the network policy and DNS"
_ROLE = (
    "the identity needs storage.objects.get, list, create and delete on the prefix (roles/storage.objectUser with a "
    "condition on the prefix)"
)


def translate(error: BaseException, *, changing: bool, where: str) -> StoreError:
    """The store error for what a call raised. `changing`: a lost answer leaves the outcome open."""
    if isinstance(error, (GoogleAuthError, MutualTLSChannelError)):
        return _no_token(error, where)
    if status := status_of(error):
        return _refusal(status, code_of(error), str(error), changing=changing, where=where)
    if isinstance(error, aiohttp.ClientError):
        return http_link.translate(error, changing=changing, where=where, check=_CHECK)
    if never_sent(error):
        return Unavailable(f"{where}: unreachable ({error}): {_CHECK}", ambiguous=False)
    if isinstance(error, (requests.Timeout, TimeoutError)):
        return errors.Timeout(f"{where}: no answer in time", ambiguous=changing)
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema)):
        said = http_link.without_login(error)
        return errors.BadRequest(f"{where}: {said}: correct STORAGE_EMULATOR_HOST")
    return Unavailable(f"{where}: {type(error).__name__}: {http_link.without_login(error)}", ambiguous=changing)


def _no_token(error: GoogleAuthError, where: str) -> StoreError:
    if error.retryable or never_sent(error):
        return Unavailable(f"{where}: no access token now: {error}", ambiguous=False)
    return errors.PermissionDenied(
        f"{where}: the credentials are missing or wrong ({error}): set `credentials.secretName` to a Secret with "
        "GOOGLE_APPLICATION_CREDENTIALS, or give the pod a cloud identity; outside a cluster, export it"
    )


def _refusal(status: int, code: str, message: str, *, changing: bool, where: str) -> StoreError:
    if status == 429 or code in _RATE_REASONS:
        return errors.Busy(f"{where}: rate limit: GCS takes one write per second per object ({message})")
    if status == 401:
        return errors.PermissionDenied(
            f"{where}: the credentials are wrong or expired: check GOOGLE_APPLICATION_CREDENTIALS or the pod's identity"
        )
    if status == 403:
        return errors.PermissionDenied(f"{where}: refused ({message}): {_ROLE}")
    if status == 413:
        return errors.TooLarge(f"{where}: {message}")
    if status == 416:
        return errors.RangeInvalid(f"{where}: the range lies outside the file")
    if status == 501:
        return errors.Unsupported(f"{where}: the backend cannot do that: {message}")
    if status == 507:
        return errors.Quota(f"{where}: the backend is full: {message}")
    # A request refused with 4xx was not acted on; after 5xx nobody knows.
    return Unavailable(f"{where}: HTTP {status} {code}: {message}", ambiguous=changing and status >= 500)
