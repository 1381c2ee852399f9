"""The trace of a request on its way to the store: its header goes on as it came, or, where OpenTelemetry is
installed and configured, with a span of the proxy's own in between.

A request without `traceparent` has no trace and makes no span: nothing here is on its way.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

from asya_contract.tracing import HEADER
from asya_proxy.errors import StoreError

log = logging.getLogger("asya_proxy.tracing")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Variables of OpenTelemetry; one of them asks for spans."""

FLUSH = 3.0
"""Seconds for the last spans, at the end of the process."""

outgoing: ContextVar[str | None] = ContextVar("asya_proxy_traceparent", default=None)
"""The `traceparent` that the store's requests carry."""

Span = Callable[[str, str, Mapping[str, str]], AbstractContextManager[None]]
"""A block as a span: its name, the `traceparent` above it, attributes. What the block raises is its error."""


def headers() -> dict[str, str]:
    """What a request to the store carries besides its own headers."""
    traceparent = outgoing.get()
    return {} if traceparent is None else {HEADER: traceparent}


@contextmanager
def passed_on(_name: str, parent: str, _attributes: Mapping[str, str]) -> Iterator[None]:
    """No span: `parent` goes on as it came."""
    reset = outgoing.set(parent)
    try:
        yield
    finally:
        outgoing.reset(reset)


class Spans:
    """Where spans come from, and the end of it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Makes spans where the environment names a collector and OpenTelemetry is there."""
        self.span: Span = passed_on
        self._provider: Any = None
        if any(environ.get(name) for name in ENDPOINTS):
            try:
                self._provider = _provider()
            except ImportError as error:
                log.warning("no spans: OpenTelemetry is not installed", extra={"cause": str(error)})
            except ValueError as error:  # state is served whatever the variables of tracing say
                log.warning("no spans: OpenTelemetry refuses its settings", extra={"cause": str(error)})
            else:
                self.span = _maker(self._provider)

    def close(self) -> None:
        """Send what is left. Blocking, for at most `FLUSH` seconds: a collector that is gone holds up no end."""
        if self._provider is not None:
            sending = threading.Thread(target=self._provider.shutdown, name="asya-spans", daemon=True)
            sending.start()
            sending.join(FLUSH)
            if sending.is_alive():
                log.warning("spans were lost: the collector does not take them", extra={"seconds": FLUSH})


def _provider() -> Any:
    """The SDK, set up by its own variables. Raises ImportError."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
    if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "asya-state-proxy"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _maker(provider: Any) -> Span:
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = provider.get_tracer("asya_proxy")
    propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(name: str, parent: str, attributes: Mapping[str, str]) -> Iterator[None]:
        above = propagator.extract({HEADER: parent})
        with tracer.start_as_current_span(
            name, above, SpanKind.SERVER, attributes, record_exception=False, set_status_on_exception=False
        ) as made:
            context = made.get_span_context()
            own = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
            try:
                with passed_on(name, own, attributes):
                    yield
            except Exception as error:
                code = error.code if isinstance(error, StoreError) else "internal"
                made.set_attribute("error.type", code)
                # What a handler meets in the ordinary course of things is no error of the server's.
                if not isinstance(error, StoreError) or error.wire.status >= 500:
                    made.set_status(StatusCode.ERROR, str(error))
                raise

    return span
