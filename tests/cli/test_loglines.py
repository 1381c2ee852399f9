"""JSON log lines in words; anything else untouched."""

import json

import pytest

from asya_cli.loglines import readable
from asya_contract.logs import ALWAYS


def test_a_log_line_of_the_proxy():
    line = json.dumps(
        {"time": "2026-01-01", "level": "info", "logger": "asya_proxy.mount", "message": "mount ready", "cas": True}
    )
    assert readable(line) == ("info    mount ready cas=true", False)


def test_a_log_line_of_the_runtime():
    line = json.dumps(
        {
            "time": "2026",
            "level": "warning",
            "logger": "asya_runtime",
            "message": "late",
            "actor": "ns/a",
            "cause": "a b",
        }
    )
    assert readable(line) == ('warning late cause="a b"', True)


def test_a_traceback_follows_on_lines_of_its_own():
    text, alarming = readable(
        json.dumps({"level": "error", "message": "failed", "exception": "Traceback\n  x\n", "n": 1})
    )
    assert (text, alarming) == ("error   failed n=1\nTraceback\n  x", True)


@pytest.mark.parametrize("line", ["", "hello", "{", '{"a": 1}', "[1]", '{"level": "info"}', "{'level': 'x'}", '"x"'])
def test_everything_else_stays_as_it_is(line):
    assert readable(line) == (line, False)


def test_every_line_of_ours_has_what_it_takes():
    assert readable(json.dumps(dict.fromkeys(ALWAYS, "info"))) == ("info    info", False)
