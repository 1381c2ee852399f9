"""Alert rules, dashboard and runbook against what the processes really expose, and against promtool."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from asya_contract.errors import WIRE_ERRORS
from asya_runtime.metrics import OUTCOMES
from support.binaries import binary
from support.documentation import DOCS, generator
from support.exposed import exposed

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "chart" / "files" / "alerts.yaml"
DASHBOARD = ROOT / "chart" / "files" / "dashboard.json"
# What a scrape adds to what a process says: the chart's monitors, and any other way to find pods.
TARGET = {"namespace", "pod", "job", "instance", "container"}


@cache
def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def targets() -> list[tuple[str, str, str]]:
    """Of the dashboard: panel, query, legend."""
    return [(p["title"], t["expr"], t["legendFormat"]) for p in panels() for t in p["targets"]]


def queries() -> dict[str, str]:
    """Every query of both, by where it stands."""
    found = {rule["alert"]: rule["expr"] for rule in rules()}
    found |= {f"{title} ({expr})": expr for title, expr, _ in targets()}
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    return found | {v["name"]: re.sub(r"label_values\((.+), \w+\)", r"\1", v["definition"]) for v in variables[1:]}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the four processes answer to a scrape."""
    return exposed(tmp_path_factory.mktemp("exposed"))


@pytest.fixture(scope="module")
def samples(scraped: list[str]) -> dict[str, set[str]]:
    """Every name that a scrape has, and the labels of its samples."""
    found: dict[str, set[str]] = {}
    for text in scraped:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


_SELECTOR = re.compile(r"\b(asya_[a-z_]+)(?:\{([^}]*)\})?")
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def selectors(query: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric of a query, with the labels that select its series."""
    for name, matchers in _SELECTOR.findall(query):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))


def grouped(query: str) -> set[str]:
    """The labels that a query groups by."""
    return {label.strip() for labels in _GROUPED.findall(query) for label in labels.split(",")} - {""}


def test_every_name_and_label_is_exposed(samples: dict[str, set[str]]) -> None:
    assert len(queries()) > 60
    for where, query in queries().items():
        used = list(selectors(query))
        assert used, where
        for name, labels in used:
            assert name in samples, f"{where}: no process exposes {name}"
            assert labels - TARGET <= samples[name], f"{where}: {name} has no such label"
        known = set().union(*(samples[name] for name, _ in used)) | TARGET
        assert grouped(query) <= known, f"{where}: no metric of it has such a label"


def test_names_and_labels_are_found() -> None:
    query = 'sum by (namespace, op) (rate(asya_x_total{op!~"a|b", mount=~"$mount"}[5m])) / on (pod) asya_y'
    assert list(selectors(query)) == [("asya_x_total", {"op", "mount"}), ("asya_y", set())]
    assert grouped(query) == {"namespace", "op", "pod"}


def test_values_of_labels_exist() -> None:
    """An alert on a value that there never is would be silent for ever."""
    ops = {op for _, _, op in generator("facts").routes()} | {"parse", "other"}
    known = {
        ("asya_proxy_requests_total", "outcome"): {"ok", "internal", *WIRE_ERRORS},
        ("asya_proxy_requests_total", "op"): ops,
        ("asya_proxy_request_seconds_bucket", "op"): ops,
        ("asya_runtime_requests_total", "outcome"): set(OUTCOMES),
        ("asya_operator_webhook_reviews_total", "result"): {"injected", "unchanged", "refused", "malformed", "failed"},
    }
    looked_for = set()
    for where, query in queries().items():
        for name, matchers in _SELECTOR.findall(query):
            for label, values in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers):
                if "$" not in values:
                    looked_for.add((name, label))
                    assert set(values.split("|")) <= known[name, label], where
    assert looked_for == set(known)


def test_texts_name_labels_that_are_left() -> None:
    """A label that the query has aggregated away would be an empty place in a text."""
    for rule in rules():
        text = " ".join(rule["annotations"].values())
        named = set(re.findall(r"\$labels\.(\w+)", text))
        assert named <= grouped(rule["expr"]) - {"le"}, rule["alert"]
    for title, expr, legend in targets():
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) == grouped(expr) - {"le", "namespace", "pod"}, title


def test_every_metric_is_looked_at(samples: dict[str, set[str]]) -> None:
    shown = {name for query in queries().values() for name, _ in selectors(query)}
    # Of a histogram the buckets, and of a counter not when it was made.
    wanted = {
        name for name in samples if name.startswith("asya_") and not name.endswith(("_count", "_sum", "_created"))
    }
    assert wanted - shown == set()


def test_every_alert_says_what_it_should() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) > 15
    for rule in rules():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/operations/alerts.md#{rule['alert'].lower()}"


def test_every_alert_has_its_runbook() -> None:
    sections = dict(
        re.findall(r"^### (Asya\w+)\n\n(.*?)(?=\n#|\Z)", (DOCS / "operations/alerts.md").read_text(), re.M | re.S)
    )
    assert sorted(sections) == sorted(rule["alert"] for rule in rules())
    for rule in rules():
        severity, delay = rule["labels"]["severity"].capitalize(), rule["for"]
        amount = {"0m": "at once", "1h": "after an hour"}.get(delay, f"after {delay[:-1]} minutes")
        assert sections[rule["alert"]].startswith(f"*{severity}, {amount}.* "), rule["alert"]


def test_panels_are_whole_and_apart() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"]


# promtool.


def promtool(*arguments: str, given: str = "") -> str:
    """What promtool says; its complaint is the failure's text."""
    path = binary("promtool")
    if not os.access(path, os.X_OK):
        assert shutil.which("apt-get") is None, "promtool is missing: run tests/servers/promtool.sh"
        pytest.skip("there is no apt to fetch promtool with")
    done = subprocess.run([str(path), *arguments], input=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_names_and_units_as_they_should_be(scraped: list[str]) -> None:
    for text in scraped:
        assert promtool("check", "metrics", given=text) == ""


def test_promtool_takes_the_rules() -> None:
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", str(ALERTS))


def test_promtool_takes_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [
        {"record": f"query:{number}", "expr": expr.replace("$__rate_interval", "5m")}
        for number, (_, expr, _) in enumerate(targets())
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"SUCCESS: {len(recorded)} rules found" in promtool("check", "rules", str(path))


POD = 'namespace="team",pod="p"'
MOUNT = f'{POD},mount="state"'
ON_MOUNT = {"namespace": "team", "pod": "p", "mount": "state"}
OPERATOR = 'namespace="asya-system",pod="o"'


def outcomes(name: str, labels: str, failing: str, fails: str, succeeds: str) -> dict[str, str]:
    return {f'{name}{{{labels},outcome="{failing}"}}': fails, f'{name}{{{labels},outcome="ok"}}': succeeds}


def latency(name: str, labels: str, bounds: tuple[str, str]) -> dict[str, str]:
    """A histogram all of whose observations lie between both bounds."""
    low, high = bounds
    return {
        f'{name}{{{labels},le="{low}"}}': "0x120",
        f'{name}{{{labels},le="{high}"}}': "0+60x120",
        f'{name}{{{labels},le="+Inf"}}': "0+60x120",
    }


PROXY, RUNTIME, REVIEWS = (
    "asya_proxy_requests_total",
    "asya_runtime_requests_total",
    "asya_operator_webhook_reviews_total",
)
EXPIRY = "asya_operator_webhook_certificate_expiry_timestamp_seconds"
Series = dict[str, str]
# Alert -> series that fire it within two hours of one value a minute, the labels it has then, series that do not.
CASES: dict[str, tuple[Series, dict[str, str], Series]] = {
    "AsyaStateUnreachable": (
        {f"asya_proxy_ready{{{MOUNT}}}": "1x60 0x60"}, ON_MOUNT, {f"asya_proxy_ready{{{MOUNT}}}": "1x116 0x3"},
    ),
    "AsyaStateErrors": (
        outcomes(PROXY, f'{MOUNT},op="read"', "timeout", "0+6x120", "0+60x120"), ON_MOUNT,
        outcomes(PROXY, f'{MOUNT},op="read"', "timeout", "0+1x120", "0+60x120"),
    ),
    "AsyaStateFull": (
        outcomes(PROXY, f'{MOUNT},op="write"', "quota", "0+1x120", "0+60x120"), ON_MOUNT,
        outcomes(PROXY, f'{MOUNT},op="write"', "quota", "7x120", "0+60x120"),
    ),
    "AsyaStateSlow": (
        latency("asya_proxy_request_seconds_bucket", f'{MOUNT},op="read"', ("2.5", "5")), ON_MOUNT,
        latency("asya_proxy_request_seconds_bucket", f'{MOUNT},op="list"', ("2.5", "5")),
    ),
    "AsyaStateUnknownOutcomes": (
        {f"asya_proxy_unknown_outcomes_total{{{MOUNT}}}": "0x112 1x7"}, ON_MOUNT,
        {f"asya_proxy_unknown_outcomes_total{{{MOUNT}}}": "0x50 1x69"},
    ),
    "AsyaStateConflicts": (
        {f"asya_proxy_conflicts_total{{{MOUNT}}}": "0+90x120"}, ON_MOUNT,
        {f"asya_proxy_conflicts_total{{{MOUNT}}}": "0+30x120"},
    ),
    "AsyaProxyBusy": (
        outcomes(PROXY, f'{MOUNT},op="read"', "busy", "0+1x120", "0+60x120"), ON_MOUNT,
        outcomes(PROXY, f'{MOUNT},op="read"', "busy", "3x120", "0+60x120"),
    ),
    "AsyaProxyDefect": (
        {f"asya_proxy_defects_total{{{MOUNT}}}": "0x112 1x7"}, ON_MOUNT,
        {f"asya_proxy_defects_total{{{MOUNT}}}": "1x120"},
    ),
    "AsyaTurnsFailing": (
        outcomes(RUNTIME, POD, "processing_error", "0+9x120", "0+60x120"), {"namespace": "team", "pod": "p"},
        outcomes(RUNTIME, POD, "client_left", "0+30x120", "0+60x120"),
    ),
    "AsyaTurnsRefused": (
        outcomes(RUNTIME, POD, "busy", "0+1x120", "0+60x120"), {"namespace": "team", "pod": "p"},
        outcomes(RUNTIME, POD, "busy", "5x120", "0+60x120"),
    ),
    "AsyaChangesLost": (
        {f'asya_runtime_unstored_changes_total{{{POD},cause="collected"}}': "0x112 1x7"},
        {"namespace": "team", "pod": "p", "cause": "collected"},
        {f'asya_runtime_unstored_changes_total{{{POD},cause="collected"}}': "0x120"},
    ),
    "AsyaOperatorDown": ({"up": "1x120"}, {}, {f"asya_operator_actors{{{OPERATOR}}}": "0x120"}),
    "AsyaOperatorWatchDead": (
        {f"asya_operator_watch_proven_timestamp_seconds{{{OPERATOR}}}": "0x120"},
        {"namespace": "asya-system", "pod": "o"},
        {
            f"asya_operator_watch_proven_timestamp_seconds{{{OPERATOR}}}": "0+60x120",
            f"asya_operator_watch_alive{{{OPERATOR}}}": "1x120",
        },
    ),
    "AsyaOperatorRetrying": (
        {f"asya_operator_retrying_actors{{{OPERATOR}}}": "2x120"}, {"namespace": "asya-system"},
        {f"asya_operator_retrying_actors{{{OPERATOR}}}": "0x100 2x19"},
    ),
    "AsyaOperatorQueueStuck": (
        {f"asya_operator_queue_oldest_seconds{{{OPERATOR}}}": "0+60x120"}, {"namespace": "asya-system"},
        {f"asya_operator_queue_oldest_seconds{{{OPERATOR}}}": "200x120"},
    ),
    "AsyaActorsDegraded": (
        {f'asya_operator_degraded_actors{{{OPERATOR},reason="NameTaken"}}': "1x120"}, {"reason": "NameTaken"},
        {f'asya_operator_degraded_actors{{{OPERATOR},reason="NameTaken"}}': "0x110 1x9"},
    ),
    "AsyaWebhookDown": ({"up": "1x120"}, {}, {f'{REVIEWS}{{{OPERATOR},result="injected"}}': "0x120"}),
    "AsyaWebhookFailing": (
        {f'{REVIEWS}{{{OPERATOR},result="failed"}}': "0x115 1x4"}, {"namespace": "asya-system"},
        {f'{REVIEWS}{{{OPERATOR},result="unchanged"}}': "0+1x120"},
    ),
    "AsyaWebhookRefusing": (
        {f'{REVIEWS}{{{OPERATOR},result="refused"}}': "0+1x120"}, {"namespace": "asya-system"},
        {f'{REVIEWS}{{{OPERATOR},result="injected"}}': "0+1x120"},
    ),
    "AsyaWebhookSlow": (
        latency("asya_operator_webhook_review_seconds_bucket", OPERATOR, ("1", "5")), {"namespace": "asya-system"},
        latency("asya_operator_webhook_review_seconds_bucket", OPERATOR, ("0.05", "0.1")),
    ),
    # promtool's clock begins at 0: after two hours, 14 days are the time stamp 1216800.
    "AsyaCertificateExpiring": (
        {f"{EXPIRY}{{{OPERATOR}}}": "1200000x120"}, {"namespace": "asya-system"},
        {f'{EXPIRY}{{{OPERATOR}}}': "1300000x120", f'{EXPIRY}{{namespace="asya-system",pod="new"}}': "0x120"},
    ),
}  # fmt: skip


def apart(series: Series, alert: str) -> Series:
    """The same of a pod, or a namespace of the operator, of the alert's own."""
    names = {'pod="p"': f'pod="{alert}"', 'namespace="asya-system"': f'namespace="{alert}"'}
    for old, new in names.items():
        series = {name.replace(old, new): values for name, values in series.items()}
    return series


def scene(series: Series, wanted: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """One of promtool's tests: two hours of `series`, then exactly these alerts by name."""
    checks = [{"eval_time": "119m", "alertname": alert, "exp_alerts": fires} for alert, fires in wanted.items()]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    return {"interval": "1m", "input_series": inputs, "alert_rule_test": checks}


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    """By its labels; what its texts make of them is below. All in one scene, but for those that miss a metric."""
    assert sorted(CASES) == sorted(rule["alert"] for rule in rules())
    silent = [{name: value for name, value in rule.items() if name != "annotations"} for rule in rules()]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "asya", "rules": silent}]}))
    severity = {rule["alert"]: rule["labels"]["severity"] for rule in rules()}
    missing = [rule["alert"] for rule in rules() if rule["expr"].startswith("absent(")]
    present: Series = {}
    quiet: Series = {}
    fires: dict[str, list[dict[str, Any]]] = {}
    for alert, (firing, labels, still) in CASES.items():
        own = {"p": alert, "asya-system": alert}
        labels = {name: own.get(value, value) for name, value in labels.items()}
        fires[alert] = [{"exp_labels": {**labels, "severity": severity[alert]}}]
        quiet |= apart(still, alert)
        if alert not in missing:
            present |= apart(firing, alert)
    tests = [
        scene(present, {alert: wanted for alert, wanted in fires.items() if alert not in missing}),
        scene({"up": "1x120"}, {alert: fires[alert] for alert in missing}),
        scene(quiet, {alert: [] for alert in CASES}),
    ]
    wanted = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(wanted))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "tests.yaml"))


def test_texts_are_filled_in(tmp_path: Path) -> None:
    series, labels, _ = CASES["AsyaStateErrors"]
    texts = {
        "summary": "Requests for the state of team/p fail.",
        "description": "9.091% of the requests of mount state have failed for 10 minutes.",
        "runbook_url": "docs/operations/alerts.md#asyastateerrors",
    }
    fires = [{"exp_labels": {**labels, "severity": "warning"}, "exp_annotations": texts}]
    wanted = {"rule_files": [str(ALERTS)], "tests": [scene(series, {"AsyaStateErrors": fires})]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(wanted))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "tests.yaml"))
