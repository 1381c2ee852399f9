"""Each example runs as its README says, and the demo shows what it claims."""

import hashlib
import http.server
import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from support.asya_run import Running, asya, without_openai
from support.documentation import section

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
# The handler is a promise: this very file works, with nothing added.
AGENT_SHA256 = "c129c8e2de8f9328fe1d9816d323364b6329cfed8dbe73d4fabf3cfbefde6519"


def test_the_handler_is_the_promised_one_byte_for_byte():
    text = (EXAMPLES / "chat-agent" / "agent.py").read_bytes()
    assert hashlib.sha256(text).hexdigest() == AGENT_SHA256


def test_the_manifest_is_the_promised_one():
    assert yaml.safe_load((EXAMPLES / "chat-agent" / "actor.yaml").read_text()) == {
        "apiVersion": "asya.sh/v1alpha1",
        "kind": "AsyncActor",
        "metadata": {"name": "chat-agent"},
        "spec": {
            "image": "my-chat-agent:latest",
            "handler": "agent.process",
            "stateProxy": {"backend": "s3", "bucket": "asya-actor-state", "consistency": "lww"},
        },
    }


def test_chat_agent_remembers(tmp_path):
    state = ["--state", str(tmp_path)]
    with Running(EXAMPLES / "chat-agent" / "actor.yaml", *state, environ=without_openai()) as run:
        run.ready()
        assert run.call({"prompt": "I am Ada."})[1]["response"].endswith("This is your first message.")
        status, body = run.call({"prompt": "Who am I?"})
        assert status == 200
        assert body == {
            "prompt": "Who am I?",
            "response": '(built-in responder, no model) This is message 2; your first was "I am Ada.".',
        }
        assert run.stop() == 0
    history = json.loads(asya("state", "cat", "history.json", *state).stdout)
    assert [message["role"] for message in history] == ["user", "assistant"] * 2


def test_per_conversation_keeps_sessions_apart(tmp_path):
    messages = json.loads((EXAMPLES / "per-conversation" / "messages.json").read_text())
    state = ["--state", str(tmp_path)]
    with Running(EXAMPLES / "per-conversation" / "actor.yaml", *state, replicas=2) as run:
        run.ready()
        answers = [run.call(message, replica=number % 2 + 1)[1] for number, message in enumerate(messages)]
        assert [(a["session"], a["turns"]) for a in answers] == [("ada", 1), ("ben", 1), ("ada", 2), ("ben", 2)]
        assert answers[2]["response"] == "Session ada, message 2. So far: I like trains. / And long rides."
        status, body = run.call({"session": "../ben", "prompt": "x"})
        assert (status, body["error"]) == (500, "processing_error")
        assert "expected 1 to 64 letters" in body["details"]["message"]
        assert run.stop() == 0
    listed = asya("state", "ls", *state).stdout.split()
    assert [word for word in listed if "/" in word] == ["ada/history.json", "ben/history.json"]


def test_an_actor_of_ones_own_runs_as_init_wrote_it(tmp_path):
    assert asya("init", "my-agent", cwd=tmp_path).returncode == 0
    with Running(Path("my-agent") / "actor.yaml", cwd=tmp_path) as run:
        run.ready()
        assert run.call({"name": "Ada"})[1] == {"name": "Ada", "greeting": "Hello, Ada!", "visits": 1}
        assert run.call({"name": "Ada"})[1]["visits"] == 2
        assert run.stop() == 0
    assert asya("state", "cat", "visitors.json", cwd=tmp_path).stdout == '{"Ada": 2}'


def test_the_demo(tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py")],
        cwd=tmp_path,
        env=without_openai(),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9" in done.stdout
    assert "no. 2  (built-in responder, no model) This is message 8; your first was" in done.stdout
    assert "[16 entries stored]" in done.stdout
    assert done.stdout.rstrip().endswith(str(tmp_path / ".asya" / "demo" / "state" / "state.db"))


@pytest.fixture
def llm(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL", "OPENAI_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("llm_of_the_example", EXAMPLES / "chat-agent" / "llm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Endpoint(http.server.BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint that answers what the test says and keeps what it was asked."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), json.loads(body)))
        status, answer = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


@pytest.fixture
def endpoint(monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        server.asked = []
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1/")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


HISTORY = [{"role": "user", "content": "Hi"}]


def test_llm_asks_the_endpoint(llm, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_MODEL", "m")
    endpoint.answer = (200, json.dumps({"choices": [{"message": {"content": "Hello!"}}]}).encode())
    assert llm.chat(HISTORY) == "Hello!"
    ((path, headers, body),) = endpoint.asked
    assert (path, headers["Authorization"]) == ("/v1/chat/completions", "Bearer k")
    assert body == {"model": "m", "messages": HISTORY}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((401, b"no key"), r"answered 401 .*no key; check OPENAI_API_KEY"),
        ((500, b"broken"), r"answered 500 .*broken"),
        ((200, b"<html>"), r"answered no chat completion: b'<html>'"),
        ((200, b'{"choices": []}'), r"answered no chat completion"),
        ((200, b'{"choices": [{"message": {"content": null}}]}'), r"without text: None"),
    ],
)
def test_llm_says_what_went_wrong(llm, endpoint, answer, reason):
    endpoint.answer = answer
    with pytest.raises(llm.ModelError, match=reason):
        llm.chat(HISTORY)


def test_llm_without_an_endpoint_there(llm, monkeypatch, free_port):
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{free_port}/v1")
    with pytest.raises(llm.ModelError, match=r"could not be asked .*check OPENAI_BASE_URL"):
        llm.chat(HISTORY)


@pytest.mark.parametrize("base", ["localhost:1", "file:///etc/passwd"])
def test_llm_refuses_other_schemes(llm, monkeypatch, base):
    monkeypatch.setenv("OPENAI_BASE_URL", base)
    with pytest.raises(llm.ModelError, match="expected an http"):
        llm.chat(HISTORY)


@pytest.mark.parametrize("text", ["x", "0", "-1", "nan", "99999"])
def test_llm_refuses_a_bad_timeout(llm, monkeypatch, text, free_port):
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("OPENAI_TIMEOUT", text)
    with pytest.raises(llm.ModelError, match="OPENAI_TIMEOUT="):
        llm.chat(HISTORY)


def test_the_quickstart_is_the_handler_of_asya_init_and_the_actor_of_the_page():
    config, actor = yaml.safe_load_all((EXAMPLES / "quickstart.yaml").read_text())
    template = ROOT / "cli" / "src" / "asya_cli" / "templates" / "agent.py"
    assert config["data"] == {"agent.py": template.read_text()}
    (shown,) = [block for block in section("quickstart.md", "On Kubernetes") if block.language == "yaml"]
    assert actor == yaml.safe_load(shown.text)
    volume = actor["spec"]["podTemplate"]["spec"]["volumes"][0]
    assert volume["configMap"]["name"] == config["metadata"]["name"]
