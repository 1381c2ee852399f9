"""How the S3 store reaches its endpoint: sessions, clients, and what their failures mean.

The only place that knows botocore's exceptions; no operation on a state file is here.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import boto3.session
import botocore.session
from botocore import exceptions as sdk
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.config import Config
from botocore.credentials import CredentialProvider, Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.httpsession import get_cert_path
from botocore.loaders import Loader, create_loader
from botocore.parsers import create_parser
from botocore.signers import RequestSigner
from botocore.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from asya_proxy import errors, tracing
from asya_proxy.errors import StoreError, Unavailable
from asya_proxy.stores import http_link
from asya_proxy.stores.http_link import Route

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SDK_ERRORS = (sdk.ClientError, sdk.BotoCoreError, HTTPError, *http_link.ERRORS)
"""Everything that a request may raise, the SDK's or one of `s3_objects`; `translate` takes them."""

CONNECT_TIMEOUT = 3.0
SLOW_TIMEOUT = 30.0
"""Seconds that a server-side copy or the completion of an upload may take without a sign of life."""

CHECKSUM = "x-amz-checksum-crc32"
"""The checksum that the SDK gives to content, and so do we."""
_OPERATIONS = {"GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
_SENT_WITH_READS = ("x-amz-checksum-mode",)
_SOME = "name"


class Clients(NamedTuple):
    """`reads` retries by itself; `changes` and `slow` never do, because a repeated change hides a lost answer."""

    reads: S3Client
    changes: S3Client
    slow: S3Client
    credentials: Credentials | None
    authorities: str | None
    """The file of the certificates to trust, where it is not the SDK's own."""


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """Where the SDK finds the objects of a bucket, and how it asks for them."""

    base: str
    """The URL of an object, but for its encoded name."""
    route: Route
    checksums: bool
    """Whether content goes up with a checksum, for S3 to compare and keep."""
    read_headers: Mapping[str, str]
    _context: Mapping[str, Any]
    _signer: RequestSigner
    _credentials: Credentials | None

    @property
    def write_headers(self) -> Mapping[str, str]:
        return {"User-Agent": self.read_headers["User-Agent"]}

    def credentials_are_old(self) -> bool:
        """Whether the next signature fetches new ones first, which blocks."""
        credentials = self._credentials
        return isinstance(credentials, RefreshableCredentials) and bool(credentials.refresh_needed())

    def sign(self, method: str, url: str, headers: Mapping[str, str], data: bytes) -> dict[str, str]:
        """`headers` and those of the signature."""
        request = AWSRequest(method=method, url=url, headers=headers, data=data)
        # With a checksum and TLS the SDK need not hash the content for the signature too.
        summed = {"request_algorithm": {"in": "header", "name": CHECKSUM}} if CHECKSUM in headers else {}
        request.context.update(self._context, checksum=summed, has_streaming_input=bool(data))
        self._signer.sign(_OPERATIONS[method], request)
        return dict(request.headers.items())


class _EnvironCredentials(Credentials):
    """Keys read from the environment mapping at each signature, so that a rotated Secret needs no restart."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(environ["AWS_ACCESS_KEY_ID"], environ.get("AWS_SECRET_ACCESS_KEY", ""))

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        environ = self._environ
        return ReadOnlyCredentials(
            environ.get("AWS_ACCESS_KEY_ID", ""),
            environ.get("AWS_SECRET_ACCESS_KEY", ""),
            environ.get("AWS_SESSION_TOKEN") or None,
        )


class _EnvironProvider(CredentialProvider):
    METHOD = "asya-environ"

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._environ = environ

    def load(self) -> Credentials | None:
        return _EnvironCredentials(self._environ) if self._environ.get("AWS_ACCESS_KEY_ID") else None


def endpoint(environ: Mapping[str, str]) -> str | None:
    """The custom endpoint, None for AWS itself."""
    return environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None


def region(environ: Mapping[str, str]) -> str | None:
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None


@cache
def _models() -> Loader:
    """The SDK's description of S3, parsed once a process and not once a client."""
    return create_loader()


def make_clients(environ: Mapping[str, str], *, attempt_timeout: float, connections: int) -> Clients:
    """Blocking (about a second of CPU): call it in a thread. Raises what `translate` takes."""
    core = botocore.session.Session()
    core.register_component("data_loader", _models())
    core.get_component("credential_provider").insert_before("env", _EnvironProvider(environ))
    session = boto3.session.Session(botocore_session=core)
    custom = endpoint(environ)
    # Checksums in trailers broke many S3-compatible stores; AWS gets the SDK's default, and the environment decides.
    checksums: Any = environ.get("AWS_REQUEST_CHECKSUM_CALCULATION", "").lower() or _checksums(custom)
    validation: Any = environ.get("AWS_RESPONSE_CHECKSUM_VALIDATION", "").lower() or _checksums(custom)

    def make(attempts: int, read_timeout: float) -> S3Client:
        config = Config(
            connect_timeout=min(CONNECT_TIMEOUT, attempt_timeout),
            read_timeout=read_timeout,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=connections,
            tcp_keepalive=True,
            s3={"addressing_style": "path" if custom else "auto"},
            request_checksum_calculation=checksums,
            response_checksum_validation=validation,
        )
        place = region(environ) or session.region_name or "us-east-1"
        client = session.client("s3", endpoint_url=custom, region_name=place, config=config)
        client.meta.events.register_last("before-call.s3", _at_once)
        client.meta.events.register_last("before-send.s3", _trace)
        return client

    return Clients(
        reads=make(3, attempt_timeout),
        changes=make(1, attempt_timeout),
        slow=make(1, max(SLOW_TIMEOUT, attempt_timeout)),
        credentials=core.get_credentials(),
        authorities=core.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE"),
    )


class _Prepared(Exception):
    """Carries what the SDK is about to sign."""

    def __init__(self, request: AWSRequest, signer: RequestSigner) -> None:
        super().__init__()
        self.request = request
        self.signer = signer


def find_objects(clients: Clients, bucket: str) -> ObjectPlace:
    """Ask the SDK for an object up to where it would sign and send. Blocking where credentials must be fetched. Raises
    what `translate` takes."""

    def stop(request: AWSRequest, request_signer: RequestSigner, **_: Any) -> None:
        raise _Prepared(request, request_signer)

    client = clients.reads
    client.meta.events.register_last("before-sign.s3.GetObject", stop)
    try:
        client.get_object(Bucket=bucket, Key=_SOME)
    except _Prepared as prepared:
        request, signer = prepared.request, prepared.signer
    finally:
        client.meta.events.unregister("before-sign.s3.GetObject", stop)
    # What is signed is the host in lower case, so that is what must be sent.
    base = _lower_host(str(request.url)).removesuffix(_SOME)
    settings: Any = client.meta.config
    wanted = (*_SENT_WITH_READS, "User-Agent")
    return ObjectPlace(
        base=base,
        route=_route(base, clients.authorities),
        checksums=settings.request_checksum_calculation == "when_supported",
        read_headers={name: request.headers[name] for name in wanted if name in request.headers},
        _context=dict(request.context),
        _signer=signer,
        _credentials=clients.credentials,
    )


def _lower_host(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.lower()).geturl()


def _route(url: str, authorities: str | None) -> Route:
    """The way that the SDK would take."""
    scheme = url.partition("://")[0]
    bundle = str(authorities or get_cert_path(True))
    tls = ssl.create_default_context(cafile=bundle) if scheme == "https" else None
    return http_link.route(tls, get_environ_proxies(url).get(scheme))


def _at_once(params: dict[str, Any], **_: Any) -> None:
    """Send the body with the request. The SDK asks for permission first (`Expect: 100-continue`), which costs a
    round trip for each file written, and a second where the endpoint does not know it."""
    params["headers"].pop("Expect", None)


def _trace(request: AWSPreparedRequest, **_: Any) -> None:
    """Tell whose request it is. After signing: S3 does not know the header."""
    for name, value in tracing.headers().items():
        request.headers[name] = value


def _checksums(custom: str | None) -> str:
    return "when_required" if custom else "when_supported"


def code_of(error: BaseException) -> str:
    """The S3 error code (`NoSuchKey`), empty where the answer was none of S3's."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, sdk.ClientError) else ""


def status_of(error: BaseException) -> int:
    """The HTTP status, 0 where there was no answer."""
    if not isinstance(error, sdk.ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


_CREDENTIALS = (
    "the credentials are wrong or expired ({code}): check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the actor's "
    "Secret (or the pod's cloud identity)"
)
_REGION = "the region is wrong ({code}): set `region` (AWS_REGION) to the one where the bucket is{hint}"

_BY_CODE: dict[str, tuple[type[StoreError], str]] = {
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "XAdminUserNotFound"),
        (errors.PermissionDenied, _CREDENTIALS),
    ),
    **dict.fromkeys(
        (
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
            "TemporaryRedirect",
        ),
        (errors.BadRequest, _REGION),
    ),
    "RequestTimeTooSkewed": (
        errors.PermissionDenied,
        "the clocks of this node and of the backend differ too much: synchronise the node's clock",
    ),
    "KeyTooLongError": (errors.NameTooLong, "the backend refuses the name: {message}"),
    "EntityTooLarge": (errors.TooLarge, "the backend refuses the size: {message}"),
    "ObjectParentIsFile": (errors.NotDirectory, "a parent of the name is a file"),
    "ExistingObjectIsDirectory": (errors.IsDirectory, "the name is a directory"),
    "InvalidRange": (errors.RangeInvalid, "the range lies outside the file"),
    **dict.fromkeys(
        ("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "XAdminBucketQuotaExceeded"),
        (errors.Quota, "the backend is full: {message}"),
    ),
    **dict.fromkeys(
        ("NotImplemented", "MethodNotAllowed"), (errors.Unsupported, "the backend cannot do that: {message}")
    ),
    "TooManyRequests": (errors.Busy, "the backend limits the rate of requests: {message}"),
}

_PARSER: Any = create_parser("rest-xml")

_NOT_SENT = (sdk.EndpointConnectionError, sdk.ConnectTimeoutError, sdk.ProxyConnectionError)
_NO_CREDENTIALS = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.ProfileNotFound,
)
_CREDENTIALS_UNREACHABLE = (sdk.CredentialRetrievalError, sdk.TokenRetrievalError, sdk.MetadataRetrievalError)


def refusal(method: str, status: int, headers: Mapping[str, str], body: bytes) -> sdk.ClientError:
    """The exception that the SDK would make of an answer."""
    answer = {"status_code": status, "headers": headers, "body": body, "context": {}}
    return sdk.ClientError(_PARSER.parse(answer, None), _OPERATIONS[method])


def precondition_failed(error: BaseException) -> bool:
    """412, which the completion of an upload may also say inside a 200."""
    return status_of(error) == 412 or code_of(error) == "PreconditionFailed"


def translate(error: BaseException, *, changing: bool, where: str) -> StoreError:
    """The store error for what the SDK raised. `changing`: a lost answer leaves the outcome open."""
    if isinstance(error, sdk.ClientError):
        return _refusal(error, changing=changing, where=where)
    if isinstance(error, _NO_CREDENTIALS):
        return errors.PermissionDenied(
            f"{where}: no credentials ({error}): set `credentials.secretName` to a Secret with AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give the pod a cloud identity; outside a cluster, export both"
        )
    if isinstance(error, _CREDENTIALS_UNREACHABLE):
        return Unavailable(f"{where}: the cloud identity gives no credentials now: {error}", ambiguous=False)
    if isinstance(error, _NOT_SENT):
        return Unavailable(f"{where}: unreachable ({error}): check `endpoint` and the network policy", ambiguous=False)
    if isinstance(error, aiohttp.ClientError):
        check = "check `endpoint`, AWS_CA_BUNDLE and the network policy"
        return http_link.translate(error, changing=changing, where=where, check=check)
    if isinstance(error, sdk.SSLError):
        return Unavailable(
            f"{where}: TLS failed ({error}): check AWS_CA_BUNDLE and the endpoint's name", ambiguous=changing
        )
    if isinstance(error, (sdk.ReadTimeoutError, TimeoutError)):
        return errors.Timeout(f"{where}: no answer in time", ambiguous=changing)
    if isinstance(error, (sdk.ParamValidationError, sdk.InvalidRegionError, sdk.InvalidEndpointConfigurationError)):
        return errors.BadRequest(f"{where}: {error}")
    return Unavailable(f"{where}: {type(error).__name__}: {http_link.without_login(error)}", ambiguous=changing)


def _refusal(error: sdk.ClientError, *, changing: bool, where: str) -> StoreError:
    code, status = code_of(error), status_of(error)
    message = str(error.response.get("Error", {}).get("Message", ""))
    row = _BY_CODE.get(code)
    if row is not None and status < 500:
        kind, text = row
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        place = headers.get("x-amz-bucket-region") or error.response["Error"].get("Region")
        hint = f": it says {place}" if place else ""
        return kind(f"{where}: " + text.format(code=code, message=message, hint=hint))
    if status == 501:
        return errors.Unsupported(f"{where}: the backend cannot do that: {message}")
    if status == 507:
        return errors.Quota(f"{where}: the backend is full: {message}")
    if status == 429:
        return errors.Busy(f"{where}: the backend limits the rate of requests: {message}")
    if status in (401, 403):
        return errors.PermissionDenied(
            f"{where}: refused ({code or status}): the credentials need s3:GetObject, s3:PutObject and s3:DeleteObject "
            "on the prefix, and s3:ListBucket on the bucket"
        )
    if (
        status == 409 or code == "ConditionalRequestConflict"
    ):  # another conditional request was under way: nothing was done
        return Unavailable(f"{where}: {code}: {message}", ambiguous=False)
    # A request refused with 4xx was not acted on; after 5xx (and 200 with an error inside) nobody knows.
    return Unavailable(f"{where}: HTTP {status} {code}: {message}", ambiguous=changing and status >= 500)
