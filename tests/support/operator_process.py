"""The operator as a process of its own, with shorter waits between attempts: to be killed, and to end by itself.

Run as a program it is that process.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Process:
    popen: subprocess.Popen[bytes]
    log_file: Path

    def wait(self, seconds: float) -> int:
        return self.popen.wait(seconds)

    def kill(self) -> None:
        """SIGKILL: no farewell, nothing finished."""
        self.popen.kill()
        self.popen.wait(20)

    def log(self) -> str:
        return self.log_file.read_text()


@contextlib.contextmanager
def operator_process(cluster: Any, place: Path, kubeconfig: Path | None = None) -> Iterator[Process]:
    """`asya-operator run` in the test's namespace; ended by SIGTERM if it runs still."""
    from support.running_operator import SETTINGS

    settings = SETTINGS.model_copy(update={"namespaces": [cluster.namespace]})
    config, log = place / "config.json", place / "operator.log"
    config.write_text(settings.model_dump_json(by_alias=True, exclude_none=True))
    env = {**os.environ, "KUBECONFIG": str(kubeconfig or cluster.kube.kubeconfig), "ASYA_OPERATOR_CONFIG": str(config)}
    with log.open("ab") as sink:
        popen = subprocess.Popen([sys.executable, __file__], env=env, stdout=sink, stderr=sink)
    try:
        yield Process(popen, log)
    finally:
        popen.terminate()
        popen.wait(30)


if __name__ == "__main__":
    from asya_operator import operate
    from asya_operator.__main__ import main

    made = operate.kopf_settings

    def quick() -> Any:
        settings = made()
        settings.networking.error_backoffs = [0.1]
        return settings

    operate.kopf_settings = quick
    sys.exit(main(["run"]))
