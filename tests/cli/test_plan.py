"""The environment of a local run is a pod's: read back by the same classes that the proxy and the runtime use."""

import sys
from dataclasses import replace

import pytest

from asya_cli.backends import parse_backend
from asya_cli.errors import Missing, Refused
from asya_cli.plan import Place, handler_python, plan
from asya_contract.env import Mount, ProxyEnv, RuntimeEnv, ShimEnv, parse_mounts
from asya_operator.api import load_manifest
from asya_operator.desired import grace_seconds, runtime_env
from asya_operator.settings import Settings
from asya_operator.state import proxy_variables, resolve, shim_env
from asya_proxy import settings

MANIFEST = """
apiVersion: asya.sh/v1alpha1
kind: AsyncActor
metadata: {name: chat-agent}
spec:
  image: my-chat-agent:latest
  handler: agent.process
"""
SEED = MANIFEST + "  stateProxy: {backend: s3, bucket: asya-actor-state, consistency: lww}\n"


def places(count=1):
    return [Place(n, 8080 + n, 9460 + n, f"/tmp/s/{n}", "/opt/run.py") for n in range(1, count + 1)]


def planned(text, *, backend="sqlite:///srv/state", count=1, environ=None):
    (actor,) = load_manifest(text, "actor.yaml")
    return plan(actor, parse_backend(backend, "unused"), places(count), "/work", environ or {})


def test_the_seed_manifest():
    (proxy, runtime), *rest = planned(SEED, environ={"PATH": "/bin"}).replicas
    assert rest == []
    assert ProxyEnv.from_env(proxy.env) == ProxyEnv(
        backend="sqlite",
        bucket="state",
        prefix="default/chat-agent/",
        consistency="lww",
        socket="/tmp/s/1/state.sock",
        http_addr="127.0.0.1:9461",
        actor="default/chat-agent",
        sqlite_dir="/srv/state",
    )
    assert proxy.argv == (sys.executable, "-m", "asya_proxy", "serve")
    assert RuntimeEnv.from_env(runtime.env) == RuntimeEnv(
        handler="agent.process", http_port=8081, http_host="127.0.0.1", actor="default/chat-agent"
    )
    shim = ShimEnv.from_env(runtime.env)
    assert shim == ShimEnv(mounts="state:/state:write=buffered", socket_dir="/tmp/s/1", actor="default/chat-agent")
    assert (runtime.argv, runtime.cwd) == ((sys.executable, "/opt/run.py"), "/work")
    assert runtime.env["PATH"] == "/bin"


def test_without_state_there_is_no_proxy_and_no_variable_of_it():
    ((runtime,),) = planned(MANIFEST).replicas
    assert runtime.name == "chat-agent/runtime"
    assert not [name for name in runtime.env if name.startswith(("STATE_", "ASYA_STATE_"))]


def test_replicas_have_their_own_ports_and_sockets_and_the_same_state():
    todo = planned(SEED, count=2)
    assert [[p.name for p in replica] for replica in todo.replicas] == [
        ["chat-agent-1/proxy", "chat-agent-1/runtime"],
        ["chat-agent-2/proxy", "chat-agent-2/runtime"],
    ]
    first, second = (ProxyEnv.from_env(replica[0].env) for replica in todo.replicas)
    assert (first.prefix, first.bucket) == (second.prefix, second.bucket)
    assert first.socket != second.socket
    assert first.http_addr != second.http_addr
    assert todo.urls == ("http://127.0.0.1:8081/", "http://127.0.0.1:8082/")


def test_lww_with_several_replicas_warns():
    assert [w for w in planned(SEED, count=2).warnings if "consistency: lww" in w]
    assert not planned(SEED, count=1).warnings
    assert not planned(SEED.replace("lww", "cas"), count=2).warnings


def test_further_mounts_become_state_mounts_and_sockets():
    text = MANIFEST + (
        "  stateProxy:\n    backend: redis\n    bucket: main\n    maxFileSize: 8Mi\n    requestTimeout: 10s\n"
        "    mounts:\n"
        "    - {name: shared, mountPath: /shared, backend: redis, bucket: main, fromActor: catalogue}\n"
        "    - {name: cache, mountPath: /cache, backend: s3, bucket: other, consistency: cas, region: eu-west-1}\n"
    )
    ((proxy, runtime),) = planned(text, backend="manifest").replicas
    env = ProxyEnv.from_env(proxy.env)
    assert (env.backend, env.bucket, env.prefix) == ("redis", "main", "default/chat-agent/")
    shared, cache = env.mounts
    assert shared["STATE_SOCKET"] == "/tmp/s/1/shared.sock"
    assert shared["STATE_PREFIX"] == "default/catalogue/"
    assert shared["STATE_READ_ONLY"] is True
    assert (shared["name"], cache["name"]) == ("shared", "cache")
    assert not {"STATE_BACKEND", "STATE_BUCKET"} & set(shared)
    loaded = [m.env for m in settings.load(proxy.env).mounts]
    assert [(m.backend, m.bucket, m.prefix, m.read_only, m.socket) for m in loaded] == [
        ("redis", "main", "default/chat-agent/", False, "/tmp/s/1/state.sock"),
        ("redis", "main", "default/catalogue/", True, "/tmp/s/1/shared.sock"),
        ("s3", "other", "default/chat-agent@cache/", False, "/tmp/s/1/cache.sock"),
    ]
    assert cache["STATE_PREFIX"] == "default/chat-agent@cache/"
    assert (cache["STATE_BACKEND"], cache["STATE_BUCKET"], cache["STATE_CONSISTENCY"]) == ("s3", "other", "cas")
    assert cache["AWS_REGION"] == "eu-west-1"
    shim = ShimEnv.from_env(runtime.env)
    assert (shim.max_file_size, shim.request_timeout) == (8 * 2**20, 10.0)
    assert parse_mounts(shim.mounts) == [
        Mount("state", "/state"),
        Mount("shared", "/shared"),
        Mount("cache", "/cache"),
    ]


def test_a_further_mount_does_not_inherit_what_only_the_first_says():
    text = MANIFEST + (
        "  stateProxy:\n    backend: redis\n    readOnly: true\n    consistency: cas\n"
        "    mounts: [{name: notes, mountPath: /notes, backend: redis}]\n"
    )
    ((proxy, _),) = planned(text, backend="manifest").replicas
    first, notes = (m.env for m in settings.load(proxy.env).mounts)
    assert (first.read_only, first.consistency) == (True, "cas")
    assert (notes.read_only, notes.consistency) == (False, "lww")


FULL = (
    MANIFEST.replace("{name: chat-agent}", "{name: chat-agent, namespace: team}")
    + """\
  concurrency: 4
  turnTimeout: 30s
  conflictRetries: 2
  stateProxy:
    backend: s3
    bucket: bbb
    consistency: cas
    mountPath: /data
    endpoint: https://s3.example.com
    region: eu-west-1
    requestTimeout: 10s
    maxFileSize: 8Mi
    mounts:
    - {name: shared, mountPath: /shared, backend: s3, bucket: bbb, fromActor: catalogue}
    - {name: fast, mountPath: /fast, backend: redis, endpoint: 'redis://redis:6379'}
"""
)


def test_with_the_manifests_backend_the_environment_is_the_pods():
    """What the operator and the webhook would write, but for addresses and the files of the Secret."""
    (actor,) = load_manifest(FULL, "actor.yaml")
    pod = settings.load(proxy_variables(resolve(actor, Settings(proxyImage="i"), "asya-runtime"), "team", ""))
    ((proxy, runtime),) = planned(FULL, backend="manifest").replicas
    local = settings.load(proxy.env)

    def comparable(mount):
        sdk = {name: text for name, text in mount.environ.items() if text and not name.startswith("STATE_")}
        local_places = {"socket": "", "http_addr": "", "credentials_dir": ""}
        return mount.name, replace(mount.env, **local_places), sdk

    assert [comparable(m) for m in local.mounts] == [comparable(m) for m in pod.mounts]
    assert len(local.mounts) == 3
    grace = grace_seconds(actor)
    assert RuntimeEnv.from_env(runtime.env) == replace(runtime_env(actor, grace), http_host="127.0.0.1", http_port=8081)
    assert ShimEnv.from_env(runtime.env) == replace(shim_env(actor, actor.spec.state_proxy), socket_dir="/tmp/s/1")


def test_backend_manifest_takes_endpoint_and_region():
    text = SEED.replace("consistency: lww", "endpoint: 'https://s3.example.com', region: eu-west-1")
    ((proxy, _),) = planned(text, backend="manifest", environ={"AWS_ACCESS_KEY_ID": "k"}).replicas
    env = ProxyEnv.from_env(proxy.env)
    assert (env.backend, env.bucket) == ("s3", "asya-actor-state")
    assert proxy.env["AWS_ENDPOINT_URL"] == "https://s3.example.com"
    assert proxy.env["AWS_REGION"] == "eu-west-1"
    assert proxy.env["AWS_ACCESS_KEY_ID"] == "k"


def test_a_url_without_a_bucket_takes_the_manifests():
    ((proxy, _),) = planned(SEED, backend="redis://h").replicas
    assert ProxyEnv.from_env(proxy.env).bucket == "asya-actor-state"
    ((proxy, _),) = planned(SEED, backend="redis://h?bucket=mine").replicas
    assert ProxyEnv.from_env(proxy.env).bucket == "mine"


def test_variables_of_ours_in_the_shell_reach_nobody():
    shell = {
        "STATE_BUCKET": "x",
        "STATE_FOO": "1",
        "ASYA_HANDLER": "x.y",
        "ASYA_STATE_PROXY_MOUNTS": "a:/b",
        "HOME": "/h",
    }
    ((runtime,),) = planned(MANIFEST, environ=shell).replicas
    assert runtime.env["ASYA_HANDLER"] == "agent.process"
    assert "ASYA_STATE_PROXY_MOUNTS" not in runtime.env
    ((proxy, _),) = planned(SEED, environ=shell).replicas
    assert "STATE_FOO" not in proxy.env
    assert proxy.env["HOME"] == "/h"


def test_env_goes_to_the_handler_and_the_proxys_own_to_the_proxy():
    text = (
        MANIFEST
        + "  env:\n  - {name: GREETING, value: hello}\n"
        + "  - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}\n"
        + "  stateProxy:\n    backend: s3\n    bucket: bbb\n    env: [{name: STATE_LOG_LEVEL, value: debug}]\n"
    )
    ((proxy, runtime),) = planned(text).replicas
    assert (runtime.env["GREETING"], runtime.env["POD"]) == ("hello", "chat-agent-1")
    assert ProxyEnv.from_env(proxy.env).log_level == "debug"
    assert "GREETING" not in proxy.env
    assert "STATE_LOG_LEVEL" not in runtime.env


def test_a_missing_secret_is_named():
    text = MANIFEST + "  env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: llm, key: token}}}]\n"
    with pytest.raises(Missing, match="TOKEN"):
        planned(text)
    ((runtime,),) = planned(text, environ={"TOKEN": "t"}).replicas
    assert runtime.env["TOKEN"] == "t"


def test_fields_of_the_runtime():
    text = MANIFEST + "  concurrency: 4\n  turnTimeout: 30s\n"
    ((runtime,),) = planned(text).replicas
    env = RuntimeEnv.from_env(runtime.env)
    assert (env.concurrency, env.turn_timeout) == (4, 30.0)


def test_memory_with_several_replicas_is_refused():
    with pytest.raises(Refused, match="memory of its own"):
        planned(SEED, backend="memory:", count=2)
    assert planned(SEED, backend="memory:").replicas


def test_env_from_is_named_as_unread():
    (warning,) = planned(MANIFEST + "  envFrom: [{secretRef: {name: llm}}]\n").warnings
    assert "Secret llm" in warning


def test_python_of_the_manifest_where_it_exists(tmp_path):
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    assert handler_python(str(python)) == str(python)
    assert handler_python("python3") == sys.executable
    assert handler_python("/nowhere/python") == sys.executable
