"""What `asya` can fail with, and the exit code of each.

    CliError (1: an actor's process failed, or the output cannot be written)
    ├── Refused (2: a manifest, an option or a name that cannot work)
    ├── Missing (3: this machine lacks something: a variable, a free port, a directory, Linux)
    ├── NotAnswering (4: the state could not be asked)
    └── Absent (5: no such state file, or no state at all)

Each prints as one line and says what to do next.
"""

from __future__ import annotations

import click


class CliError(click.ClickException):
    """An error with a message for the user and an exit code for scripts."""

    exit_code = 1


class Refused(CliError):
    exit_code = 2


class Missing(CliError):
    exit_code = 3


class NotAnswering(CliError):
    exit_code = 4


class Absent(CliError):
    exit_code = 5


EXIT_CODES = (
    "Exit codes: 0 done, or stopped by Ctrl-C; 1 a process of the actor failed, or the output cannot be written; "
    "2 bad option or manifest; 3 this machine lacks something (variable, port, directory, Linux); "
    "4 the state could not be asked; 5 no such state file, or none at all."
)
