"""State whose actor is pointed at another place: on a real API server, what its users are told."""

import pytest

from asya_operator.state import left_behind
from support.actors import actor
from support.running_operator import eventually, running


async def test_another_backend_is_told_to_leave_the_state_behind(cluster, kube, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))

    def told():
        return [message for _, reason, message in cluster.events() if reason == "StateLeftBehind"]

    async with running(cluster):
        cluster.create("asyncactors", actor(spec__stateProxy={"backend": "redis", "bucket": "one"}))
        await eventually(lambda: cluster.condition("Ready"))
        cluster.patch("asyncactors", "chat-agent", {"spec": {"stateProxy": {"consistency": "cas"}}})
        cluster.patch("asyncactors", "chat-agent", {"spec": {"stateProxy": {"backend": "s3", "bucket": "two"}}})
        said = "mount state: state is now in s3 bucket two; what lies in redis bucket one stays there and is not moved"
        await eventually(told)
        cluster.patch("asyncactors", "chat-agent", {"spec": {"port": 9000}})
        await eventually(lambda: cluster.port() == 9000)
        assert told() == [said]


@pytest.mark.parametrize("old", [None, "", "{", '{"version": 99}'])
def test_nothing_is_said_of_what_is_not_known(old):
    assert left_behind(old, None) == ""
