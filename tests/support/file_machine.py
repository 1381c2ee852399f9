"""A state machine of file operations: the same step in a real directory and below a mount, with the same outcome."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from support.worlds import FLAGS, MODES, Worlds

_NAMES = ("a", "b", "d", "d/a", "d/b", "e", "e/a", "d/e", "d/e/a", "a/x", "strange %2F é", "d/ü?#")
_SPELLINGS = ("{}", "{}", "{}", "{}", "{}", "b:{}", "p:{}", "{}/", "./{}", "d/../{}", "d//{}", "{}/.", "r:{}")

names = st.sampled_from(_NAMES)
paths = st.builds(str.format, st.sampled_from(_SPELLINGS), names)
movable = paths.filter(lambda path: not path.endswith("/."))
"""Of a name that ends with a dot, which error comes first depends on parents that are not there."""
directories = st.sampled_from((".", "d", "e", "d/e", "a"))
slots = st.integers(0, 3)
texts = st.sampled_from(("", "x", "text\n", "two\nlines\n", "é", "0123456789" * 3, "\r\nend"))
sizes = st.integers(0, 40)


def _one_of(*operations: tuple[Any, ...]) -> st.SearchStrategy[list[Any]]:
    """One of some operations, each given as its name and the strategies of its arguments."""
    return st.one_of(
        *(
            st.tuples(*(part if isinstance(part, st.SearchStrategy) else st.just(part) for part in operation)).map(list)
            for operation in operations
        )
    )


class Files(RuleBasedStateMachine):
    """Slots 0 to 3 hold open files, and as many descriptors. `script` is what was done so far, to be run again."""

    def __init__(self, worlds: Worlds) -> None:
        super().__init__()
        self.worlds = worlds
        self.script: list[list[Any]] = []
        self.files: set[int] = set()
        self.fds: set[int] = set()
        self.failed = False
        self.begun = False

    @initialize(as_turn=st.booleans(), furniture=st.booleans())
    def begin(self, as_turn: bool, furniture: bool) -> None:
        self.worlds.begin(as_turn)
        self.begun = True
        if furniture:
            for operation in (["mkdir", "d"], ["put", "a", "0123456789"], ["put", "d/a", "below"]):
                self.step(operation)

    def step(self, operation: list[Any]) -> str | None:
        """Do it in both worlds; what both said, None where it is left out."""
        self.script.append(operation)
        [outcome] = self.worlds.ask({"do": [operation]})
        if not outcome:
            self.script.pop()
            return None
        if outcome[0] != outcome[1]:
            self.failed = True
            raise AssertionError(
                f"on a disk {outcome[0]}, below a mount {outcome[1]}\n{json.dumps(self.script, ensure_ascii=False)}"
            )
        return str(outcome[0])

    # Names

    @rule(
        operation=_one_of(
            ("stat", paths),
            ("lstat", paths),
            ("look", paths),
            ("getsize", paths),
            ("times", paths),
            ("get", paths),
            ("listdir", directories),
            ("listdir", paths),
            ("scandir", directories),
            ("iterdir", directories),
            ("walk", directories, st.booleans()),
            ("fwalk", directories),
            ("glob", st.sampled_from(("*", "**", "d/*", "**/a", "?", "[ab]", "*/", "d/**/*"))),
            ("rglob", directories, st.sampled_from(("*", "a", "**/a", "d/*"))),
            ("samefile", paths, names),
            ("realpath", names),
            ("statvfs", paths),
            ("readlink", paths),
            ("listxattr", names),
            ("getxattr", names, "k"),
            ("here", st.builds("r:{}".format, names)),
        )
    )
    def look(self, operation: list[Any]) -> None:
        self.step(operation)

    @rule(
        operation=_one_of(
            ("put", paths, texts),
            ("add", paths, texts),
            ("touch", paths, st.booleans()),
            ("put_atomically", names, texts),
            ("truncate_path", paths, sizes),
            ("utime", paths, st.integers(1, 9).map(lambda n: n * 1000)),
            ("chmod", names, st.sampled_from((0o600, 0o644, 0o640))),
            ("mkdir", paths),
            ("makedirs", names, st.booleans()),
            ("path_mkdir", names, st.booleans(), st.booleans()),
            ("setxattr", names, "k", st.sampled_from(("v", "w"))),
            ("removexattr", names, "k"),
            ("temporary", directories),
            ("chdir", directories),
        )
    )
    def make(self, operation: list[Any]) -> None:
        self.step(operation)

    @rule(
        operation=_one_of(
            ("unlink", paths),
            ("path_unlink", names, st.booleans()),
            ("rmdir", paths),
            ("rmtree", st.sampled_from(("d", "e", "d/e", "a")), st.booleans()),
        )
    )
    def remove(self, operation: list[Any]) -> None:
        self.step(operation)

    @rule(
        operation=_one_of(
            ("rename", movable, movable),
            ("replace", names, names),
            ("copyfile", names, names),
            ("copy", movable, movable),
            ("copy2", names, names),
            ("move", names, names),
            ("copytree", directories.filter(lambda name: name != "."), names),
        )
    )
    def move(self, operation: list[Any]) -> None:
        self.step(operation)

    # File objects

    @rule(
        slot=slots,
        path=paths,
        mode=st.sampled_from(MODES),
        buffering=st.sampled_from((-1, -1, -1, 0, 1, 4)),
        newline=st.sampled_from((None, "", "\n", "\r\n")),
    )
    def open(self, slot: int, path: str, mode: str, buffering: int, newline: str | None) -> None:
        if "b" not in mode and buffering == 0:
            buffering = -1
        if "b" in mode and buffering == 1:
            buffering = 2
        said = self.step(["open", slot, path, mode, buffering, newline])
        if said is not None:
            self.files.discard(slot)
            if said.startswith("("):
                self.files.add(slot)

    @precondition(lambda self: self.files)
    @rule(
        data=st.data(),
        operation=_one_of(
            ("write", texts),
            ("write", texts),
            ("read", st.integers(-1, 12)),
            ("read",),
            ("readline",),
            ("readlines",),
            ("following",),
            ("readinto", st.integers(1, 8)),
            ("seek", st.integers(0, 30)),
            ("seek", st.integers(-3, 3), st.integers(0, 2)),
            ("seek", 0, 2),
            ("tell",),
            ("truncate",),
            ("truncate", sizes),
            ("flush",),
            ("fsync",),
            ("fstat",),
            ("write_below", texts),
            ("is_same", names),
            ("close",),
        ),
    )
    def use(self, data: st.DataObject, operation: list[Any]) -> None:
        slot = data.draw(st.sampled_from(sorted(self.files)))
        if operation[0] == "close":
            self.files.discard(slot)
        self.step([operation[0], slot, *operation[1:]])

    # Descriptors

    @rule(slot=slots, path=paths, flags=st.sampled_from(FLAGS), mode=st.sampled_from((0o666, 0o640, 0o600)))
    def os_open(self, slot: int, path: str, flags: str, mode: int) -> None:
        said = self.step(["os_open", slot, path, flags, mode])
        if said is not None:
            self.fds.discard(slot)
            if said == "None":
                self.fds.add(slot)

    @precondition(lambda self: self.fds)
    @rule(
        data=st.data(),
        operation=_one_of(
            ("os_read", sizes),
            ("os_write", texts),
            ("os_write", texts),
            ("os_pread", sizes, sizes),
            ("os_pwrite", texts, sizes),
            ("os_readv", st.integers(1, 5), st.integers(1, 5)),
            ("os_writev", texts, texts),
            ("os_lseek", st.integers(-2, 30), st.integers(0, 2)),
            ("os_ftruncate", sizes),
            ("os_fstat",),
            ("os_fsync",),
            ("os_listdir",),
            ("os_scandir",),
            ("os_fchdir",),
            ("at", st.sampled_from(("stat", "unlink", "mkdir", "rmdir")), st.sampled_from(("a", "b", "e"))),
            ("os_close",),
        ),
    )
    def use_descriptor(self, data: st.DataObject, operation: list[Any]) -> None:
        slot = data.draw(st.sampled_from(sorted(self.fds)))
        if operation[0] == "os_close":
            self.fds.discard(slot)
        self.step([operation[0], slot, *operation[1:]])

    @precondition(lambda self: self.fds)
    @rule(data=st.data(), other=slots, mode=st.sampled_from(MODES), duplicate=st.booleans())
    def pass_on(self, data: st.DataObject, other: int, mode: str, duplicate: bool) -> None:
        """To another descriptor, or to a file object."""
        slot = data.draw(st.sampled_from(sorted(self.fds)))
        if duplicate:
            if other != slot and self.step(["os_dup", slot, other]) == "None":
                self.fds.add(other)
            return
        said = self.step(["os_fdopen", slot, other, mode])
        if said is not None:
            self.files.discard(other)
            if said.startswith("("):
                self.files.add(other)
                self.fds.discard(slot)

    @rule()
    def next_turn(self) -> None:
        """Where nothing is open."""
        self.step(["next_turn"])

    def teardown(self) -> None:
        if not self.begun:
            return
        ended = self.worlds.end()
        if self.failed:
            return
        script = json.dumps(self.script, ensure_ascii=False)
        for real, state in ended["closed"]:
            assert real == state, f"at the end, on a disk {real}, below a mount {state}\n{script}"
        real, state = ended["trees"]
        assert real == state, f"left behind, on a disk {real}, below a mount {state}\n{script}"
