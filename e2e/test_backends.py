"""Each backend in each mode, for a while, with a pod that goes in the middle."""

import threading
import time
from functools import partial

from rig import backends
from rig.actors import Actor, Namespace, Unanswered
from rig.backends import BACKENDS
from rig.waiting import until

SECONDS = 20.0
ATTEMPT_SECONDS = 10.0


class Traffic(threading.Thread):
    """Messages to a counter, one after the other; `unknown` may have been done and were not answered."""

    def __init__(self, actor: Actor) -> None:
        super().__init__()
        self.actor = actor
        self.answered: list[int] = []
        self.unknown = 0
        self.failed: BaseException | None = None

    def run(self) -> None:
        end = time.monotonic() + SECONDS
        try:
            while time.monotonic() < end:
                self._send()
        except BaseException as error:
            self.failed = error

    def _send(self) -> None:
        try:
            self.answered.append(self.actor.send(deadline=ATTEMPT_SECONDS)["count"])
        except Unanswered as error:
            # Between two pods nobody answers; where an answer was cut, the turn may have been done.
            self.unknown += 1
            if error.status not in (0, 502, 503):
                raise
            time.sleep(0.1)


def _answers(actor: Actor) -> bool:
    try:
        actor.send()
    except Unanswered:
        return False
    return True


def test_each_backend_in_each_mode(namespace: Namespace) -> None:
    namespace.cluster.apply(backends.secret(), namespace=namespace.name)
    actors = [
        namespace.actor(f"{backend}-{mode}", "handlers.counter", {"backend": backend, "consistency": mode})
        for backend in BACKENDS
        for mode in ("lww", "cas")
    ]
    everything = [Traffic(actor.ready(deadline=120)) for actor in actors]
    for traffic in everything:
        traffic.start()
    time.sleep(SECONDS / 3)  # some traffic before, and some after
    for actor in actors:
        actor.kubectl("delete", "pod", actor.pod()["metadata"]["name"], "--wait=false")
    for traffic in everything:
        traffic.join(timeout=SECONDS + ATTEMPT_SECONDS + 30)

    for traffic in everything:
        name, answered = traffic.actor.name, traffic.answered
        assert traffic.failed is None, name
        assert len(answered) > 10, name
        assert answered == sorted(set(answered)), f"{name}: an acknowledged count was taken back"
        until(partial(_answers, traffic.actor), 120, f"{name} answers")
        final = int(traffic.actor.exec("asya-state-proxy", "asya-state-proxy", "cat", "count"))
        assert len(answered) < final <= len(answered) + 1 + traffic.unknown, name
        print(f"{name}: {len(answered)} answered in {SECONDS:g} s, {traffic.unknown} unanswered, {final} counted")
