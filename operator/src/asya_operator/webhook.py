"""The admission webhook as a server: TLS whose certificate is reloaded live, health and metrics on a port of
their own. It has no permission in the cluster and asks nobody anything; what it decides is in `admission`.
"""

import asyncio
import contextlib
import logging
import signal
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from cryptography import x509
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from asya_operator import admission
from asya_operator.settings import Settings

log = logging.getLogger("asya_operator.webhook")

# The API server sends objects of up to 3 MiB, on some operations twice, in an envelope.
MAX_BODY = 8 * 2**20
BODY_SECONDS = 10.0
RELOAD_SECONDS = 1.0
# The endpoint's removal takes a moment to reach every node: an end waits until nobody has asked for so long,
LAME_DUCK_SECONDS = 5.0
# and not longer than this. What is open then may still be answered.
LONGEST_DRAIN_SECONDS = 15.0
FINISH_SECONDS = 5.0


class Metrics:
    """What the webhook tells Prometheus; one registry per server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reviews = Counter(
            "asya_operator_webhook_reviews_total",
            "Admission reviews by result: injected, unchanged, refused, malformed, failed.",
            ["result"],
            registry=self.registry,
        )
        for result in ("injected", "unchanged", "refused", "malformed", "failed"):
            # There from the start: the first step of a counter that appears with it is no increase to Prometheus.
            self.reviews.labels(result)
        self.seconds = Histogram(
            "asya_operator_webhook_review_seconds",
            "Time to answer one admission review, in seconds.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5),
            registry=self.registry,
        )
        self.certificate_expiry = Gauge(
            "asya_operator_webhook_certificate_expiry_timestamp_seconds",
            "When the serving certificate expires, as Unix time; 0 before there is one.",
            registry=self.registry,
        )
        self.reloads = Counter(
            "asya_operator_webhook_certificate_reloads_total",
            "Certificates taken into use, by result: loaded, refused.",
            ["result"],
            registry=self.registry,
        )
        for result in ("loaded", "refused"):
            self.reloads.labels(result)


@dataclass(frozen=True)
class Files:
    """Certificate chain and key in PEM, as a Secret of type kubernetes.io/tls is mounted."""

    cert: Path
    key: Path

    def state(self) -> tuple[bytes, bytes] | None:
        """What the files hold; None while one is missing."""
        try:
            return self.cert.read_bytes(), self.key.read_bytes()
        except OSError:
            return None


class Certificate:
    """The TLS context of the server, and the reload of its certificate."""

    def __init__(self, files: Files, metrics: Metrics) -> None:
        self.context = _server_context()
        self.ready = asyncio.Event()
        self._files = files
        self._metrics = metrics
        self._seen: tuple[bytes, bytes] | None = None
        self._expiry = 0.0

    def valid(self, now: float) -> bool:
        """True while the loaded certificate has not expired; `now` is Unix time."""
        return self.ready.is_set() and now < self._expiry

    def reload(self) -> bool:
        """Take a new pair into use for the connections to come. True where there was one that works.

        A pair that does not belong together (a Secret in the middle of its update) leaves the old one in use.
        """
        pair = self._files.state()
        if pair is None or pair == self._seen:
            return False
        self._seen = pair
        try:
            _server_context().load_cert_chain(self._files.cert, self._files.key)
            expiry = x509.load_pem_x509_certificate(pair[0]).not_valid_after_utc.timestamp()
            self.context.load_cert_chain(self._files.cert, self._files.key)
        except (ssl.SSLError, ValueError, OSError) as error:
            self._metrics.reloads.labels("refused").inc()
            log.error("certificate not usable", extra={"file": str(self._files.cert), "cause": str(error)})
            return False
        self._expiry = expiry
        self._metrics.certificate_expiry.set(expiry)
        self._metrics.reloads.labels("loaded").inc()
        log.info("certificate loaded", extra={"file": str(self._files.cert), "expires": expiry})
        self.ready.set()
        return True

    async def watch(self) -> None:
        """Reload whenever the files change, for ever."""
        while True:
            self.reload()
            await asyncio.sleep(RELOAD_SECONDS)


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@dataclass
class Drain:
    """The end of a server, seen by those that ask: when the last of them did, in seconds of `time.monotonic`."""

    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    asked: float = 0.0

    async def quiet(self, seconds: float, longest: float) -> None:
        """Wait until nobody has asked for `seconds`, from now on, and `longest` seconds at most."""
        began = now = time.monotonic()
        while now < (end := min(max(began, self.asked) + seconds, began + longest)):
            await asyncio.sleep(end - now)
            now = time.monotonic()


def review_app(settings: Settings, metrics: Metrics, drain: Drain) -> web.Application:
    """What listens with TLS: `POST /mutate`."""

    async def mutate(request: web.Request) -> web.Response:
        started = time.perf_counter()
        drain.asked = time.monotonic()
        response, result = await _mutate(request, settings)
        metrics.reviews.labels(result).inc()
        metrics.seconds.observe(time.perf_counter() - started)
        if drain.stopping.is_set():
            # API servers keep connections, and do not repeat what they sent on one that is closed under it.
            response.force_close()
        return response

    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_post("/mutate", mutate)
    return app


async def _mutate(request: web.Request, settings: Settings) -> tuple[web.Response, str]:
    if request.content_type != "application/json":
        return web.Response(
            status=415, text=f"Content-Type {request.content_type!r}: expected application/json"
        ), "malformed"
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await request.read()
        review = admission.parse(body)
    except TimeoutError:
        return web.Response(status=408, text=f"the body did not arrive within {BODY_SECONDS:g} s"), "malformed"
    except web.HTTPRequestEntityTooLarge:
        return web.Response(status=413, text=f"the body has more than {MAX_BODY} bytes"), "malformed"
    except admission.NotAReview as error:
        return web.Response(status=400, text=str(error)), "malformed"
    where = {**admission.whose(review), "uid": review.uid}
    try:
        answer = admission.answer(review, settings)
        result: str = answer.result
    except Exception:
        # A fault of ours must not become a 500: the API server would say nothing to the user but that.
        log.exception("review failed", extra=where)
        answer = admission.refusal(review, "the webhook failed on this pod; its log has the cause")
        result = "failed"
    if answer.result == "refused":
        log.warning("pod refused", extra={**where, "cause": answer.message})
    return web.json_response(answer.body), result


def health_app(
    certificate: Certificate, metrics: Metrics, listening: asyncio.Event, stopping: asyncio.Event
) -> web.Application:
    """What listens without TLS: `/healthz`, `/readyz`, `/metrics`."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if stopping.is_set():
            return web.Response(status=503, text="stopping\n")
        if not certificate.valid(time.time()):
            return web.Response(status=503, text="no valid certificate yet\n")
        if not listening.is_set():
            return web.Response(status=503, text="not listening yet\n")
        return web.Response(text="ok\n")

    async def prometheus(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", prometheus)
    return app


@dataclass
class Addresses:
    """Where the server listens once it does; port 0 asks for a free one."""

    host: str = "0.0.0.0"
    port: int = 9443
    health_port: int = 8080


class Server:
    """Both listeners and the certificate's watch, as one thing to start and to stop."""

    def __init__(self, settings: Settings, files: Files, addresses: Addresses) -> None:
        self.metrics = Metrics()
        self.certificate = Certificate(files, self.metrics)
        self.drain = Drain()
        self.listening = asyncio.Event()
        self.addresses = addresses
        self._settings = settings
        self._runners: list[web.AppRunner] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen: health at once, reviews as soon as there is a certificate."""
        health = health_app(self.certificate, self.metrics, self.listening, self.drain.stopping)
        self.addresses.health_port = await self._listen(health, self.addresses.health_port, None)
        self._tasks = [asyncio.create_task(self.certificate.watch()), asyncio.create_task(self._serve())]

    async def _serve(self) -> None:
        await self.certificate.ready.wait()
        app = review_app(self._settings, self.metrics, self.drain)
        self.addresses.port = await self._listen(app, self.addresses.port, self.certificate.context)
        self.listening.set()
        log.info("listening", extra={"port": self.addresses.port})

    async def _listen(self, app: web.Application, port: int, context: ssl.SSLContext | None) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=FINISH_SECONDS)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, self.addresses.host, port, ssl_context=context)
        await site.start()
        return int(runner.addresses[0][1])

    async def stop(self, lame_duck: float = LAME_DUCK_SECONDS) -> None:
        """Say not ready, go on answering until nobody has asked for `lame_duck` seconds, finish what is open, end."""
        self.drain.stopping.set()
        await self.drain.quiet(lame_duck, LONGEST_DRAIN_SECONDS)
        for task in self._tasks:
            task.cancel()
        for runner in reversed(self._runners):
            await runner.cleanup()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def failed(self) -> None:
        """Wait until a part of the server ends by itself, and raise what ended it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()


async def serve(settings: Settings, files: Files, addresses: Addresses) -> None:
    """Run until SIGTERM or SIGINT."""
    server = Server(settings, files, addresses)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    waiters = [asyncio.create_task(stop.wait()), asyncio.create_task(server.failed())]
    try:
        done, _ = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in waiters:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await server.stop()
