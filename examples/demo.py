"""`make demo`: a conversation that outlives its processes, shown and checked.

Sends the messages of `chat-agent/messages.txt` through `asya run chat-agent/actor.yaml` on SQLite: to one replica, to
one whose proxy was killed, to one that was restarted, and to two at once. After each message the stored history must
hold exactly what was said so far; the demo ends with status 1 if it does not.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent / "chat-agent"
PLACE = Path(".asya", "demo")
STATE = PLACE / "state"
LOG = PLACE / "asya-run.log"
ASYA = (sys.executable, "-m", "asya_cli")

START_SECONDS = 60
STOP_SECONDS = 60
ANSWER_SECONDS = 180
BOLD, DIM, RESET = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if sys.stdout.isatty() else ("", "", "")


class DemoError(Exception):
    """What was shown is not what was promised."""


class Actor:
    """`asya run` as a process of its own; its lines go to LOG."""

    def __init__(self, replicas: int = 1) -> None:
        port = free_ports(replicas)
        self.urls = [f"http://127.0.0.1:{port + n}/" for n in range(replicas)]
        manifest = os.path.relpath(EXAMPLE / "actor.yaml")
        words = ["run", manifest, "--state", str(STATE), "--port", str(port)]
        words += ["--replicas", str(replicas)] if replicas > 1 else []
        print(f"{DIM}$ asya {' '.join(words)}{RESET}")
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._process = subprocess.Popen([*ASYA, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.wait_for(" is ready: ", START_SECONDS)

    def wait_for(self, text: str, seconds: float) -> str:
        """The last line that holds `text`, once there is one."""

        def found() -> str | None:
            return next((line for line in reversed(self._lines) if text in line), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or not self._reader.is_alive(), seconds)
            line = found()
        if line is None:
            raise DemoError(f"asya run never said {text!r}; its last lines:\n" + "".join(self._lines[-12:]))
        return line

    def kill_proxy(self) -> int:
        """Kill -9 the (only) state proxy; its pid."""
        pid = int(re.findall(r"pid (\d+)", self.wait_for("/proxy   | started", START_SECONDS))[0])
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop(self) -> None:
        """Ctrl-C, and nothing left of it."""
        self._process.send_signal(signal.SIGINT)
        self.end()
        if self._process.returncode != 0:
            raise DemoError(f"asya run ended with {self._process.returncode}:\n" + "".join(self._lines[-12:]))

    def end(self) -> None:
        """Wait for its end, and make it come if it does not."""
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def abort(self) -> None:
        self._process.terminate()
        self.end()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with open(LOG, "a") as log, self._process.stdout as output:
            for line in output:
                log.write(line)
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()


class Conversation:
    """What was said so far, and the proof that the state holds exactly that."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, prompt: str, url: str, name: str = "actor") -> None:
        print(f"  {BOLD}you{RESET}    {prompt}")
        body = json.dumps({"prompt": prompt}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 -- our own address
            response = json.load(answer)["response"]
        self.said += [prompt, response]
        stored = [message["content"] for message in json.loads(asya("state", "cat", "history.json"))]
        if stored != self.said:
            raise DemoError(f"the history should be {self.said}, and is {stored}")
        print(f"  {BOLD}{name:6}{RESET} {response}  {DIM}[{len(stored)} entries stored]{RESET}")


def asya(*words: str) -> str:
    """The output of an `asya` command on the demo's state."""
    done = subprocess.run([*ASYA, *words, "--state", str(STATE)], stdout=subprocess.PIPE, text=True, timeout=60)
    if done.returncode:
        raise DemoError(f"asya {' '.join(words)} ended with {done.returncode}")
    return done.stdout


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports that nothing listens on; none that the kernel gives to connections."""
    for port in range(18080, 28080, count):
        try:
            for n in range(count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + n))
        except OSError:
            continue
        return port
    raise DemoError(f"no {count} neighbouring ports are free")


def parts_of(path: Path) -> list[list[str]]:
    """The messages of a file, one a line, in parts with a blank line between them; `#` begins a comment."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return [part.splitlines() for part in "\n".join(lines).strip().split("\n\n")]


def title(text: str) -> None:
    print(f"\n{BOLD}{text}{RESET}")


def converse(parts: list[list[str]], running: list[Actor]) -> Conversation:
    """The whole demo; `running` holds the actor that runs, if one does."""
    first, killed, restarted, replicas = parts
    conversation = Conversation()

    title("1. An actor remembers from one message to the next.")
    running.append(Actor())
    for prompt in first:
        conversation.say(prompt, running[0].urls[0])

    title("2. Its state proxy is killed with kill -9. The next message waits for the new one.")
    print(f"{DIM}$ kill -9 {running[0].kill_proxy()}{RESET}")
    for prompt in killed:
        conversation.say(prompt, running[0].urls[0])
    running[0].wait_for("/proxy   | ready again", START_SECONDS)

    title("3. The actor is stopped and started again.")
    running.pop().stop()
    running.append(Actor())
    for prompt in restarted:
        conversation.say(prompt, running[0].urls[0])
    running.pop().stop()

    title("4. Two replicas, each with a proxy of its own, share the state.")
    running.append(Actor(replicas=2))
    for number, prompt in enumerate(replicas):
        replica = number % 2
        conversation.say(prompt, running[0].urls[replica], f"no. {replica + 1}")
    running.pop().stop()
    return conversation


def main() -> int:
    parts = parts_of(EXAMPLE / "messages.txt")
    if len(parts) != 4:
        print(f"{EXAMPLE / 'messages.txt'} has {len(parts)} parts; the demo needs 4", file=sys.stderr)
        return 1
    if PLACE.exists():
        shutil.rmtree(PLACE)  # of the demo before
    PLACE.mkdir(parents=True)
    running: list[Actor] = []
    try:
        conversation = converse(parts, running)
        title("5. What is stored, read from the database with nothing running.")
        print(f"{DIM}$ asya state ls --state {STATE}{RESET}")
        print(asya("state", "ls"), end="")
        print(f"{DIM}$ asya state cat history.json --state {STATE}{RESET}")
        print(asya("state", "cat", "history.json"))
        database = next(STATE.glob("*.db")).resolve()
    except (DemoError, OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"\nThe demo failed: {error}\nThe log of asya run is {LOG.resolve()}", file=sys.stderr)
        return 1
    finally:
        for actor in running:
            actor.abort()
    prompts = len(conversation.said) // 2
    print(f"\n{BOLD}All {prompts} messages and answers are in the state, in order.{RESET} It lies in {database}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
