"""The words of the command line, as golden files."""

import click
import pytest
from click.testing import CliRunner

from asya_cli.__main__ import main

COMMANDS = ["", "run", "init", "state", "state ls", "state cat"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, golden):
    result = CliRunner().invoke(main, [*command.split(), "--help"], prog_name="asya", terminal_width=100)
    assert result.exit_code == 0
    golden.check(f"{' '.join(['asya', *command.split()]).replace(' ', '-')}.txt", result.output)


def commands_below(group, words=()):
    yield " ".join(words)
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_below(command, (*words, name))
        else:
            yield " ".join((*words, name))


def test_every_command_has_its_golden_file():
    assert sorted(commands_below(main)) == sorted(COMMANDS)


def test_short_help_is_help():
    for words in (["-h"], ["state", "ls", "-h"]):
        assert CliRunner().invoke(main, words).exit_code == 0


def test_every_help_has_the_exit_codes():
    for command in COMMANDS:
        output = CliRunner().invoke(main, [*command.split(), "--help"], terminal_width=1000).output
        assert "Exit codes: 0 done" in output


def test_version():
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, "asya, version 0.1.0\n")
