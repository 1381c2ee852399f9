"""`asya init`: what it writes is a valid manifest and a handler, and nothing that is there is replaced."""

import pytest
from click.testing import CliRunner

from asya_cli.__main__ import main
from asya_operator.api import load_manifest


def init(*words):
    return CliRunner().invoke(main, ["init", *words], prog_name="asya")


def test_it_writes_manifest_handler_and_dockerfile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = init("my-agent")
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "run it with: asya run my-agent/actor.yaml")
    directory = tmp_path / "my-agent"
    assert sorted(path.name for path in directory.iterdir()) == ["Dockerfile", "actor.yaml", "agent.py"]
    (actor,) = load_manifest((directory / "actor.yaml").read_text(), "actor.yaml")
    assert (actor.name, actor.spec.image) == ("my-agent", "my-agent:latest")
    compile((directory / "agent.py").read_text(), "agent.py", "exec")


@pytest.mark.parametrize("there", ["actor.yaml", "agent.py", "Dockerfile"])
def test_it_replaces_nothing_and_then_writes_nothing(tmp_path, there):
    (tmp_path / there).write_text("mine")
    result = init("my-agent", "--directory", str(tmp_path))
    assert result.exit_code == 2
    assert f"{there}: already there" in result.output
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_files_of_other_names_may_be_there(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    assert init("my-agent", "--directory", str(tmp_path)).exit_code == 0


@pytest.mark.parametrize("name", ["My_Agent", "-x", "1st", "a b", "a: b", "x" * 64, "../x"])
def test_a_bad_name_is_refused_before_anything_is_written(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    result = init("--", name)
    assert result.exit_code == 2
    assert result.output.count("\n") <= 4
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    result = init("my-agent", "--directory", str(tmp_path / "file" / "below"))
    assert (result.exit_code, str(tmp_path / "file") in result.output) == (3, True)
