"""The operator's log: one JSON object a line, and not a line for each event of each object."""

import json
import subprocess
import sys

from asya_contract.logs import ALWAYS

SCRIPT = """
import logging
from asya_operator import logs
logs.set_up("{level}")
logging.getLogger("kopf.objects").info("Handler succeeded.")
extra = {{"settings": "x" * 4000, "k8s_skip": True, "k8s_ref": {{"name": "a"}}}}
logging.getLogger("kopf.objects").error("Handler failed.", extra=extra)
logging.getLogger("asya_operator").info("mine", extra={{"actor": "a"}})
"""


def lines(level):
    command = [sys.executable, "-c", SCRIPT.format(level=level)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_events_are_told_when_debugging_only():
    assert [line["message"] for line in lines("info")] == ["Handler failed.", "mine"]
    assert [line["message"] for line in lines("debug")] == ["Handler succeeded.", "Handler failed.", "mine"]
    assert [line["message"] for line in lines("error")] == ["Handler failed."]


def test_fields():
    failed, mine = lines("info")
    assert set(failed) == {*ALWAYS, "k8s_ref"}
    assert (mine["actor"], mine["level"], mine["logger"]) == ("a", "info", "asya_operator")
