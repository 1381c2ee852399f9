"""`asya-operator` as a person meets it: help, render, inject, and errors that say what to do."""

import io
import json

import pytest
import yaml

from asya_operator.__main__ import main
from support.actors import actor
from support.pods import NEW_IMAGE


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"proxyImage": NEW_IMAGE}))
    return str(path)


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "actor.yaml"
    path.write_text(yaml.safe_dump(actor(spec__replicas=2)))
    return str(path)


@pytest.mark.parametrize("command", ["", "webhook", "render", "inject"])
def test_help(command, golden, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("ASYA_OPERATOR_CONFIG", raising=False)
    with pytest.raises(SystemExit) as caught:
        main([*filter(None, [command]), "--help"])
    assert caught.value.code == 0
    golden.check(f"help/{command or 'all'}.txt", capsys.readouterr().out)


def test_render_and_inject_make_what_the_cluster_gets(config, manifest, capsys, monkeypatch):
    assert main(["--config", config, "render", "-f", manifest, "-n", "team-a"]) == 0
    rendered = capsys.readouterr()
    assert "warning: chat-agent: spec.stateProxy.consistency: lww with spec.replicas: 2" in rendered.err
    deployment, service = yaml.safe_load_all(rendered.out)
    assert (deployment["kind"], service["kind"]) == ("Deployment", "Service")
    assert deployment["metadata"]["namespace"] == "team-a"
    assert deployment["spec"]["replicas"] == 2
    monkeypatch.setattr("sys.stdin", io.StringIO(rendered.out))
    assert main(["--config", config, "inject", "-f", "-"]) == 0
    injected, untouched = yaml.safe_load_all(capsys.readouterr().out)
    assert untouched == service
    proxy = injected["spec"]["template"]["spec"]["initContainers"][0]
    assert (proxy["name"], proxy["image"]) == ("asya-state-proxy", NEW_IMAGE)
    assert {"name": "STATE_PREFIX", "value": "team-a/chat-agent/"} in proxy["env"]


def test_render_as_job(config, manifest, capsys):
    assert main(["--config", config, "render", "-f", manifest, "--as", "job", "--", "-m", "seed", "--all"]) == 0
    (found,) = yaml.safe_load_all(capsys.readouterr().out)
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python3", "/opt/asya/run.py", "-m", "seed", "--all"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["render", "-f", "MANIFEST", "--as", "job"], 2, "give the program after --"),
        (["render", "-f", "MANIFEST", "x.py"], 2, "'x.py' is for --as job only"),
        (["render", "-f", "/nowhere.yaml"], 1, "/nowhere.yaml: No such file or directory"),
        (["--config", "/nowhere.json", "render", "-f", "MANIFEST"], 1, "/nowhere.json: No such file or directory"),
    ],
)
def test_errors(arguments, status, message, manifest, capsys):
    assert main([manifest if a == "MANIFEST" else a for a in arguments]) == status
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json: is not JSON"),
        ("[]", "expected an object, got a list"),
        ("{}", "proxyImage: missing, and it is required"),
        ('{"proxyImage": "x", "proxyimages": []}', "proxyimages: no such field; did you mean 'proxyImage'?"),
        ('{"proxyImage": "x", "keyPrefix": "/abs"}', "keyPrefix: '/abs' is not of the form"),
        ('{"proxyImage": "x", "backends": {"s4": {}}}', "backends.s4: no such field; did you mean 's3'?"),
        (
            '{"proxyImage": "x", "backends": {"s3": {"env": [{"name": "STATE_PREFIX", "value": "y"}]}}}',
            "backends.s3.env[0].name: STATE_PREFIX is set by the operator",
        ),
    ],
)
def test_settings_that_cannot_be(text, message, manifest, tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(text)
    assert main(["--config", str(path), "render", "-f", manifest]) == 1
    assert message in capsys.readouterr().err


def test_a_bad_manifest(tmp_path, capsys):
    path = tmp_path / "actor.yaml"
    path.write_text(yaml.safe_dump(actor(spec__stateProxy__backend="s4")))
    assert main(["render", "-f", str(path)]) == 1
    assert "spec.stateProxy.backend: 's4' is not allowed; one of s3, gcs, redis, nats" in capsys.readouterr().err


def test_a_pod_that_cannot_be(tmp_path, capsys):
    path = tmp_path / "pod.yaml"
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"labels": {"asya.sh/state-proxy": "true"}},
        "spec": {"containers": [{"name": "a"}]},
    }
    path.write_text(yaml.safe_dump(body))
    assert main(["inject", "-f", str(path)]) == 1
    assert "no annotation asya.sh/state-config" in capsys.readouterr().err


def test_an_error_of_no_file_is_shown_whole(config, monkeypatch):
    def operate(_):
        raise OSError("No username set in the environment")

    monkeypatch.setattr("asya_operator.operate.operate", operate)
    with pytest.raises(OSError, match="No username"):
        main(["--config", config, "run"])
