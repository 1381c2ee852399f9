"""`asya run` as a process of a test: started on a free port, its lines waited for, ended by its handle."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

from support.ports import free_port

START = 60.0
STOP = 60.0


class Running:
    """One `asya run`; a context manager that leaves nothing running."""

    def __init__(self, manifest, *words, cwd=None, environ=None, replicas=1):
        self.port = free_port(replicas)
        argv = [sys.executable, "-m", "asya_cli", "run", str(manifest), "--port", str(self.port), *words]
        argv += ["--replicas", str(replicas)] if replicas > 1 else []
        self.lines = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            argv, cwd=cwd, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP)
        self._reader.join(STOP)

    def _read(self):
        with self.process.stdout as output:
            for line in output:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, pattern, count=1):
        """The `count`th line that matches `pattern`; an AssertionError with all lines if it never comes."""

        def found():
            return [match for match in (re.search(pattern, line) for line in list(self.lines)) if match][count - 1 :]

        with self._news:
            self._news.wait_for(lambda: found() or not self._reader.is_alive(), START)
            matches = found()
        assert matches, f"no line matched {pattern!r}:\n" + "\n".join(self.lines)
        return matches[0]

    def ready(self):
        self.wait_for(r"asya +\| \S+ is ready: ")
        return self

    def pid(self, name, count=1):
        return int(self.wait_for(rf"{name} *\| started, pid (\d+)", count).group(1))

    def pids(self):
        return [int(m.group(1)) for m in (re.search(r"\| started, pid (\d+)", line) for line in self.lines) if m]

    def call(self, payload, replica=1):
        """The status and the decoded body of `POST /` with `payload`."""
        url = f"http://127.0.0.1:{self.port + replica - 1}/"
        request = urllib.request.Request(url, json.dumps(payload).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=START) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def stop(self, number=signal.SIGINT):
        """Its exit code after Ctrl-C; every process that it started is gone."""
        self.process.send_signal(number)
        code = self.process.wait(STOP)
        self._reader.join(STOP)
        left = [pid for pid in self.pids() if Path(f"/proc/{pid}").exists()]
        assert not left, f"still there: {left}"
        return code


def asya(*words, cwd=None, environ=None):
    """A finished `asya` command: returncode, stdout, stderr."""
    argv = [sys.executable, "-m", "asya_cli", *words]
    return subprocess.run(argv, cwd=cwd, env=environ, capture_output=True, text=True, timeout=120, check=False)


def without_openai():
    """The environment of a test in which the example must answer by itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
