"""What runs elsewhere is pinned by content: actions by commit, node images by digest."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_all_of_them_are_here() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "e2e", "release", "soak"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_and_say_their_version(path: Path) -> None:
    lines = [line.strip() for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    loose = [x for x in lines if not re.fullmatch(r"- uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", x)]
    assert loose == []


def test_one_action_has_one_commit_everywhere() -> None:
    found: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for action, commit in re.findall(r"uses: ([\w./-]+)@([0-9a-f]{40})", path.read_text()):
            found.setdefault(action, set()).add(commit)
    assert {action: commits for action, commits in found.items() if len(commits) > 1} == {}


def test_rights_are_given_job_by_job() -> None:
    for path in WORKFLOWS:
        assert re.search(r"^permissions:\n  contents: read$", path.read_text(), re.M), path.name


def test_node_images_of_kind_are_pinned_by_digest() -> None:
    text = (ROOT / "e2e" / "kind.sh").read_text()
    assert len(re.findall(r"node=kindest/node:v1\.\d+\.\d+@sha256:[0-9a-f]{64} ;;", text)) == 2
    chart = (ROOT / "chart" / "Chart.yaml").read_text()
    oldest = re.search(r'kubeVersion: ">=(1\.\d+)\.', chart)
    assert oldest is not None
    assert f"node:v{oldest.group(1)}." in text
