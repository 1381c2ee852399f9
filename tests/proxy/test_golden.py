"""What a user sees of the proxy besides its wire: names of metrics, help texts, the shape of a log line."""

from __future__ import annotations

import json
import logging

import pytest

from asya_proxy.__main__ import main
from asya_proxy.logs import JsonFormatter
from asya_proxy.metrics import Metrics
from support.golden import Golden


def test_names_of_metrics(golden: Golden) -> None:
    metrics = Metrics()
    metrics.mount("state").observe("read", "ok", 0.0002)
    names = [line for line in metrics.text().decode().splitlines() if line.startswith("#")]
    golden.check("metrics.txt", "\n".join(names) + "\n")


def test_a_latency_falls_into_its_bucket() -> None:
    metrics = Metrics()
    metrics.mount("state").observe("read", "ok", 0.0002)
    text = metrics.text().decode()
    for bound, count in (("0.0001", 0), ("0.00025", 1), ("30", 1), ("+Inf", 1)):
        assert f'asya_proxy_request_seconds_bucket{{le="{bound}",mount="state",op="read"}} {count}.0' in text
    assert 'asya_proxy_request_seconds_sum{mount="state",op="read"} 0.0002' in text


@pytest.mark.parametrize("command", ["", "serve", "install", "check", "ls", "cat"])
def test_help(
    command: str, golden: Golden, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as done:
        main([*command.split(), "--help"])
    assert done.value.code == 0
    golden.check(f"help-{command or 'all'}.txt", capsys.readouterr().out)


def test_a_log_line_is_one_json_object() -> None:
    record = logging.makeLogRecord(
        {"name": "asya_proxy.requests", "levelno": 30, "levelname": "WARNING", "msg": "a\nb"}
    )
    record.key = "d/%0A"
    line = JsonFormatter().format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["level"], parsed["message"], parsed["key"]) == ("warning", "a\nb", "d/%0A")
    assert set(parsed) == {"time", "level", "logger", "message", "key"}
