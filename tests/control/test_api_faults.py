"""The operator while the API server, or the network before it, fails: it comes back by itself, and says when it cannot.

The API server is a real one, the faults are made by a front before it.
"""

import pytest

from asya_operator import operate
from support.actors import actor
from support.api_front import Front, is_watch
from support.running_operator import eventually, healthz, running


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """The same steps with shorter waits: kopf's for an inactive watch, ours between lists and attempts."""
    made = operate.kopf_settings

    def quick():
        settings = made()
        settings.networking.error_backoffs = [0.1] * 1000
        settings.networking.request_timeout = 1
        settings.watching.inactivity_timeout = 1.0
        return settings

    monkeypatch.setattr(operate, "kopf_settings", quick)
    monkeypatch.setattr(operate, "LIST_SECONDS", 0.2)
    monkeypatch.setattr("asya_operator.work.FIRST_RETRY", 0.1)
    monkeypatch.setattr("asya_operator.kube.CALL_SECONDS", 1.0)


@pytest.fixture
def front(cluster, monkeypatch):
    with Front(cluster.kube.url, cluster.kube.ca_file).serve() as found:
        found.kubeconfig = cluster.kube.kubeconfig_of(cluster.kube.token, "front", found.url)
        monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig))
        yield found


async def nothing():
    pass


async def test_storms_pass(cluster, front):
    """Everything is refused for a while, watches end, and actors come and change meanwhile."""
    async with running(cluster, kubeconfig=front.kubeconfig) as operator:
        for number, fault in enumerate((429, 500, 503, "hang", "cut")):
            front.rule = lambda _, fault=fault: fault
            front.seen["refused"] = 0
            front.end_watches()
            cluster.create("asyncactors", actor(metadata__name=f"a{number}"))
            if number:
                cluster.patch("asyncactors", f"a{number - 1}", {"spec": {"port": 9000}})
                operator.queue.add((cluster.namespace, f"a{number - 1}"))
            await eventually(lambda: front.seen["refused"] >= 8)
            front.rule = lambda _: None
            await eventually(lambda name=f"a{number}": cluster.get("services", name))
            if number:
                await eventually(lambda name=f"a{number - 1}": cluster.port(name) == 9000)
        await eventually(lambda: operator.alive)
        assert await healthz(operator) == (200, "ok\n")


async def test_a_server_that_asks_for_time_gets_it(cluster, front, caplog):
    async with running(cluster, kubeconfig=front.kubeconfig) as operator:
        front.retry_after = 7
        front.rule = lambda request: 429 if "deployments" in request.path else None
        cluster.create("asyncactors", actor())
        await eventually(lambda: [r for r in caplog.records if r.message == "pass failed"])
        (record, *_) = [r for r in caplog.records if r.message == "pass failed"]
        assert (record.cause, record.seconds) == ("by the front", 7.0)
        front.rule = lambda _: None
        operator.queue.add((cluster.namespace, "chat-agent"))
        await eventually(lambda: cluster.get("services"))


async def test_a_watch_that_is_too_old_begins_anew(cluster, front):
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
    async with running(cluster, kubeconfig=front.kubeconfig) as operator:
        await eventually(lambda: front.seen["watches"] >= len(operate.CHILDREN) + 1)
        watches = front.seen["watches"]
        front.end_watches(gone)
        await eventually(lambda: front.seen["watches"] >= 2 * watches)
        cluster.create("asyncactors", actor())
        await eventually(lambda: cluster.get("services"))
        assert operator.alive


async def test_a_watch_that_goes_deaf_is_opened_again(cluster, front, monkeypatch):
    """Silence on a connection that stays open: no error, no event, no bookmark."""
    async with running(cluster, kubeconfig=front.kubeconfig) as operator:
        await eventually(lambda: front.seen["watches"] > len(operate.CHILDREN))
        monkeypatch.setattr(operator, "compare", nothing)  # else the lists would help
        front.deaf = True
        await eventually(lambda: front.seen["watches"] > 2 * len(operate.CHILDREN))
        front.deaf = False
        cluster.create("asyncactors", actor())
        await eventually(lambda: cluster.get("services"))


async def test_a_deaf_watch_fails_the_liveness_and_lists_do_its_work(cluster, front):
    """A network that lets short calls through and swallows every stream."""
    async with running(cluster, kubeconfig=front.kubeconfig) as operator:
        await eventually(lambda: front.seen["watches"] > len(operate.CHILDREN))
        front.rule = lambda request: "hang" if is_watch(request) else None
        front.end_watches()
        cluster.create("asyncactors", actor())
        await eventually(lambda: cluster.get("services"))
        await eventually(lambda: not operator.alive)
        assert await healthz(operator) == (503, "the watch is dead\n")
        assert operator.metrics.registry.get_sample_value("asya_operator_watch_alive") == 0
        front.rule = lambda _: None
        front.end_watches()
        await eventually(lambda: operator.alive)
