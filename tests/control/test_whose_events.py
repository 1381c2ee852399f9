"""Whose trouble an Event is: names that begin alike, pods of others, and pods whose name Kubernetes has cut."""

import datetime

import pytest

from asya_operator.api import parse_actor
from asya_operator.reconcile import Reconciler
from support.actors import actor
from support.running_operator import SETTINGS

NOW = datetime.datetime(2026, 5, 1, 12, 0, 0, tzinfo=datetime.UTC)
LONG = "a" * 60


class Events:
    """An API server that has one Event."""

    def __init__(self, kind, name):
        self.event = {"involvedObject": {"kind": kind, "name": name}, "lastTimestamp": "2026-05-01T12:00:00Z"}

    async def list(self, kind, namespace, labels="", fields=""):
        assert kind == "Event"
        return [self.event]


# (actor, its pod, kind and name of the Event's object, whether it is the actor's)
CASES = [
    ("chat-agent", "chat-agent-5d8f7c9b6-x2z4k", "ReplicaSet", "chat-agent-5d8f7c9b6", True),
    ("chat-agent", "chat-agent-5d8f7c9b6-x2z4k", "Pod", "chat-agent-5d8f7c9b6-x2z4k", True),
    ("chat-agent", "chat-agent-5d8f7c9b6-x2z4k", "ReplicaSet", "chat-agent-web-5d8f7c9b6", False),
    ("chat-agent", "chat-agent-5d8f7c9b6-x2z4k", "ReplicaSet", "chat-agent", False),
    ("chat-agent", "chat-agent-5d8f7c9b6-x2z4k", "Pod", "chat-agent-web-5d8f7c9b6-x2z4k", False),
    ("chat-agent", "chat-agent-5d8f7c9b6-x2z4k", "Pod", "chat-agent-web-0", False),
    ("chat-agent", "chat-agent-5d8f7c9b6-x2z4k", "Pod", "chat-agent-purge-x2z4k", False),
    ("chat-agent", "chat-agent-5d8f7c9b6-x2z4k", "Job", "chat-agent-purge", False),
    (LONG, LONG[:58] + "x2z4k", "Pod", LONG[:58] + "x2z4k", True),
]


@pytest.mark.parametrize(("name", "pod", "kind", "about", "is_its_own"), CASES)
async def test_an_event_is_the_trouble_of_the_actor_it_is_about(name, pod, kind, about, is_its_own):
    passes = Reconciler(Events(kind, about), SETTINGS, now=lambda: NOW)
    found = await passes._warnings(parse_actor(actor(metadata__name=name)), [{"metadata": {"name": pod}}])
    assert bool(found) == is_its_own
