"""The operator as a process: kopf watches and triggers, workers make passes, a port tells how it goes.

kopf is used for its watch streams alone: its handlers here persist nothing on objects and add no
finalizer, and what a trigger says beyond "look at this actor" is ignored.
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections import Counter as Counted
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import kopf
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from asya_contract.names import ACTOR_LABEL, GROUP, PLURAL, VERSION
from asya_operator import definition
from asya_operator.kube import Kube, KubeError, Object
from asya_operator.reconcile import Reconciler
from asya_operator.rollout import Key
from asya_operator.rotation import rotate
from asya_operator.settings import Settings
from asya_operator.watchdog import Watchdog
from asya_operator.work import WorkQueue

log = logging.getLogger("asya_operator.operate")

WORKERS = 8
LIST_SECONDS = 60.0
DEFINITION_SECONDS = 5.0
PASS_SECONDS = 120.0
IDENTITY: Any = "asya-operator"
FINISH_SECONDS = 10.0
SETTLE_SECONDS = 0.5
CHILDREN = (("apps", "v1", "deployments"), ("", "v1", "services"), ("", "v1", "pods"), ("batch", "v1", "jobs"))


class Metrics:
    """What the operator tells Prometheus."""

    def __init__(self, queue: WorkQueue) -> None:
        self.registry = CollectorRegistry()
        self.passes = Counter(
            "asya_operator_passes_total",
            "Passes over one actor by result: done, failed.",
            ["result"],
            registry=self.registry,
        )
        for result in ("done", "failed"):
            # There from the start: the first step of a counter that appears with it is no increase to Prometheus.
            self.passes.labels(result)
        self.seconds = Histogram(
            "asya_operator_pass_seconds",
            "Time of one pass over one actor, in seconds.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 30, 120),
            registry=self.registry,
        )
        self.actors = Gauge("asya_operator_actors", "Actors at the last list.", registry=self.registry)
        self.degraded = Gauge(
            "asya_operator_degraded_actors",
            "Actors that are Degraded at the last list, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.certificate_expiry = Gauge(
            "asya_operator_certificate_expiry_timestamp_seconds",
            "When the webhook's certificate expires, as Unix time; 0 where the operator does not issue it.",
            registry=self.registry,
        )
        self.watch_alive = Gauge(
            "asya_operator_watch_alive", "1 while the watch shows what lists show.", registry=self.registry
        )
        self.watch_alive.set(1)
        self.watch_proven = Gauge(
            "asya_operator_watch_proven_timestamp_seconds",
            "When a list last showed that the watch is alive, as Unix time; the start of the process before that.",
            registry=self.registry,
        )
        self.watch_proven.set_to_current_time()
        depth = Gauge("asya_operator_queue_length", "Actors that wait for a pass.", registry=self.registry)
        depth.set_function(lambda: len(queue))
        oldest = Gauge(
            "asya_operator_queue_oldest_seconds",
            "How long the actor has waited that waits longest for a pass.",
            registry=self.registry,
        )
        oldest.set_function(lambda: queue.oldest)
        retrying = Gauge(
            "asya_operator_retrying_actors",
            "Actors whose last pass failed; each is tried again.",
            registry=self.registry,
        )
        retrying.set_function(lambda: queue.retrying)


@dataclass
class Operator:
    """Everything of one process, wired once."""

    kube: Kube
    settings: Settings
    queue: WorkQueue = field(default_factory=WorkQueue)
    watchdog: Watchdog = field(default_factory=Watchdog)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    alive: bool = True
    # Set once the cluster's resource definition is known to be ours; until then, why nothing is done.
    defined: asyncio.Event = field(default_factory=asyncio.Event)
    waits_for: str = "starting"
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    # Where health is told, once it is.
    health_addresses: list[Any] = field(default_factory=list)
    # What a user wants of each actor, by uid, generation and deletion.
    intents: dict[Key, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.queue)
        self.reconciler = Reconciler(self.kube, self.settings, wake=self.queue.add)
        self.namespaces: list[str | None] = list(self.settings.namespaces) or [None]

    def registry(self) -> kopf.OperatorRegistry:
        """Kopf's handlers: triggers, nothing else."""
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**kwargs: Any) -> Any:
            return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        async def actor(event: Mapping[str, Any], **_: Any) -> None:
            metadata = event["object"]["metadata"]
            key = (metadata["namespace"], metadata["name"])
            deleted = event["type"] == "DELETED"
            self.watchdog.seen(key, None if deleted else metadata["resourceVersion"])
            intent = None if deleted else (metadata["uid"], metadata["generation"], metadata.get("deletionTimestamp"))
            # Our own writes of the status are no news; a list (type None) is, for what was missed.
            if event["type"] != "MODIFIED" or self.intents.get(key) != intent:
                self.queue.add(key)
            if intent is None:
                self.intents.pop(key, None)
            else:
                self.intents[key] = intent

        async def child(event: Mapping[str, Any], **_: Any) -> None:
            metadata = event["object"]["metadata"]
            # Children change in bursts, half of them by our own hand: one pass for all.
            self.queue.add((metadata["namespace"], metadata["labels"][ACTOR_LABEL]), SETTLE_SECONDS)

        for group, version, plural in CHILDREN:
            kopf.on.event(group, version, plural, labels={ACTOR_LABEL: kopf.PRESENT}, registry=registry)(child)
        return registry

    async def work(self) -> None:
        """One worker: passes, until the queue is closed."""
        while (key := await self.queue.take()) is not None:
            started = time.perf_counter()
            where = {"actor": "/".join(key)}
            try:
                async with asyncio.timeout(PASS_SECONDS):
                    again = await self.reconciler.reconcile(*key)
            except (KubeError, TimeoutError) as error:
                delay = self.queue.failed(key, error.retry_after if isinstance(error, KubeError) else 0.0)
                self.metrics.passes.labels("failed").inc()
                log.warning("pass failed", extra={**where, "cause": str(error), "seconds": delay})
            except Exception:
                # One actor's surprise must not end the passes of all others.
                delay = self.queue.failed(key)
                self.metrics.passes.labels("failed").inc()
                log.exception("pass failed unexpectedly", extra={**where, "seconds": delay})
            else:
                self.queue.done(key)
                self.metrics.passes.labels("done").inc()
                if again is not None:
                    self.queue.add(key, again)
            self.metrics.seconds.observe(time.perf_counter() - started)

    async def watch_the_watch(self) -> None:
        """List now and then: work on what the watch missed, and notice one that is dead.

        Raises:
            ForeignDefinition: somebody has put another definition in the place of ours.
        """
        await self.defined.wait()
        while True:
            await asyncio.sleep(LIST_SECONDS)
            try:
                if (found := await self._definition()) is not None:
                    definition.check(found)
                await self.compare()
            except KubeError as error:
                log.warning("list failed", extra={"cause": str(error)})

    async def _definition(self) -> Object | None:
        return await self.kube.get("CustomResourceDefinition", None, definition.NAME)

    async def watch(self, stop: asyncio.Event) -> None:
        """Kopf, from the moment on when the cluster's definition is ours, until `stop` is set."""
        while not stop.is_set() and (why := await self._unprepared()):
            if why != self.waits_for:
                log.error("waiting: %s", why)
            self.waits_for = why
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DEFINITION_SECONDS):
                    await stop.wait()
        if stop.is_set():
            return
        self.waits_for = "starting"
        self.defined.set()
        await kopf.operator(
            # Else kopf asks for the name of the user, and the image's user has none.
            identity=IDENTITY,
            registry=self.registry(),
            settings=kopf_settings(),
            standalone=True,
            clusterwide=not self.settings.namespaces,
            namespaces=self.settings.namespaces,
            stop_flag=stop,
            ready_flag=self.ready,
        )

    async def _unprepared(self) -> str:
        """Why no pass may be made yet; empty where it may."""
        if why := await self._undefined():
            return why
        try:
            await self.reconciler.recall(self.namespaces)
        except KubeError as error:
            # Where it is not allowed to list them, the watch says so and ends the process.
            return f"the Deployments cannot be listed: {error}" if error.passing else ""
        return ""

    async def _undefined(self) -> str:
        """Why the cluster's definition cannot be used; empty where it can."""
        try:
            found = await self._definition()
            if found is None:
                return f"the resource definition {definition.NAME} is not there; apply crds/asyncactors.yaml"
            definition.check(found)
            # Kopf looks once at what is served, and is deaf for what comes later.
            served = await self.kube.serves("AsyncActor")
        except KubeError as error:
            return f"the resource definition {definition.NAME} cannot be read: {error}"
        except definition.ForeignDefinition as error:
            return str(error)
        return "" if served else f"the API server does not serve {definition.NAME} yet"

    async def compare(self) -> None:
        """One list against the watch."""
        versions = {}
        degraded: Counted[str] = Counted()
        for namespace in self.namespaces:
            for body in await self.kube.list("AsyncActor", namespace):
                metadata = body["metadata"]
                versions[(metadata["namespace"], metadata["name"])] = metadata["resourceVersion"]
                degraded.update(_degraded(body))
        self.metrics.actors.set(len(versions))
        self.metrics.degraded.clear()
        for reason, count in degraded.items():
            self.metrics.degraded.labels(reason).set(count)
        behind, dead = self.watchdog.listed(versions)
        for key in behind:
            self.queue.add(key)
        if dead and self.alive:
            log.error("the watch is dead: lists show what it does not", extra={"actors": len(behind)})
        self.alive = not dead
        self.metrics.watch_alive.set(0 if dead else 1)
        if not dead:
            self.metrics.watch_proven.set_to_current_time()

    def health_app(self) -> web.Application:
        """`/healthz` fails when the watch is dead, `/readyz` until it has begun, `/metrics`."""

        async def healthz(_: web.Request) -> web.Response:
            return web.Response(text="ok\n") if self.alive else web.Response(status=503, text="the watch is dead\n")

        async def readyz(_: web.Request) -> web.Response:
            return (
                web.Response(text="ok\n")
                if self.ready.is_set()
                else web.Response(status=503, text=f"{self.waits_for}\n")
            )

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(
                body=generate_latest(self.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
            )

        app = web.Application()
        app.router.add_get("/healthz", healthz)
        app.router.add_get("/readyz", readyz)
        app.router.add_get("/metrics", metrics)
        return app

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, or a part ends that should not."""
        runner = web.AppRunner(self.health_app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=self.settings.health_port).start()
        self.health_addresses = runner.addresses
        workers = [asyncio.create_task(self.work()) for _ in range(WORKERS)]
        tasks = [*workers, *(asyncio.create_task(part) for part in self._parts(stop))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self.ended.set()
            self.queue.close()
            # A pass that is under way may end; the next process does the rest.
            await asyncio.wait(workers, timeout=FINISH_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await runner.cleanup()
            await self.kube.close()

    def _parts(self, stop: asyncio.Event) -> Iterator[Coroutine[Any, Any, None]]:
        """What runs beside the workers; the watch ends when `stop` is set."""
        yield self.watch_the_watch()
        if self.settings.certificates is not None:
            yield rotate(self.kube, self.settings.certificates, self.metrics.certificate_expiry)
        yield self.watch(stop)


def _degraded(body: Object) -> list[str]:
    """The reason of an actor's Degraded condition, where that is true."""
    rows = body.get("status", {}).get("conditions", [])
    return [row["reason"] for row in rows if (row["type"], row["status"]) == ("Degraded", "True")]


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf for watching and nothing else; every request with a deadline, the children filtered by the server."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # The namespaces are given, and the definition is looked for before. Scanning would need the right to list all
    # namespaces, and kopf asks for a minute before it believes that there is none.
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.queueing.idle_timeout = 1.0
    for group, version, plural in CHILDREN:
        settings.watching.label_selectors[(group, version, plural) if group else (version, plural)] = ACTOR_LABEL
    return settings


def operate(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await Operator(await Kube.connect(), settings).run(stop)

    try:
        asyncio.run(main())
    except definition.ForeignDefinition as error:
        log.error("ending: %s", error)
        return 1
    return 0
