"""Under gevent each greenlet is an observer of its own, though all of them run on one thread."""

import json
import subprocess
import sys

from support.state_proxy import PROGRAMS, State, child_environ


def test_greenlets_are_isolated(cas: State) -> None:
    names = ("turns", "outside", "seen")
    for name in names:
        cas.put(name, b"0")
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "greenlets.py"), *map(cas.path, names)],
        env=child_environ() | cas.proxy.environ(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    turns, outside, seen = json.loads(done.stdout)
    for counted, conflicts in (turns, outside):
        assert counted == 40, "a lost update"
        assert conflicts > 0, "they did not meet"
    assert seen == ["0", "not stored yet", "not stored yet"]
