"""What README and CONTRIBUTING say is there: the example is the example, targets and commands exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from asya_cli.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*/README.md"))


def block(language):
    (text,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return text


@pytest.mark.parametrize(("language", "file"), [("yaml", "actor.yaml"), ("python", "agent.py")])
def test_the_first_screen_is_the_example_that_runs(language, file):
    assert block(language) == (ROOT / "examples" / "chat-agent" / file).read_text()


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_targets_exist(text):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word for run in re.findall(r"(?:^    |`)make ((?:[a-z0-9-]+ ?)+)", text, re.MULTILINE) for word in run.split()
    }
    assert named
    assert named <= targets


@pytest.mark.parametrize("path", [ROOT / "README.md", *EXAMPLES], ids=lambda path: path.parent.name)
def test_commands_parse(path):
    lines = [line.strip() for line in path.read_text().splitlines() if re.match(r"    (?:[A-Z_]+=\S+ )*asya ", line)]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        words = words[words.index("asya") + 1 :]
        command: click.Command = main
        context = click.Context(main)
        while isinstance(command, click.Group):
            name = words.pop(0)
            found = command.get_command(context, name)
            assert found is not None, line
            command = found
        command.make_context("asya", words)


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_paths_exist(text):
    named = set(re.findall(r"`((?:shim|proxy|operator|cli|crds|examples|tests|bench|e2e)/[^`{}* ]*)`", text))
    assert named
    missing = [path for path in named if "NAME" not in path and not (ROOT / path).exists()]
    assert missing == []
