"""What `tests/servers/build.sh` builds, and for which system: with a `go` that only notes what it is asked for."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[1] / "servers" / "build.sh"
GO = """#!/usr/bin/env bash
set -eu
case $1 in
  env) echo /nowhere; exit ;;
  install) name=${!#}; name=${name%@*}; name=${name%/v[0-9]}; out=$GOPATH/bin/${GOOS-here}/${name##*/} ;;
  build) while [ "$1" != -o ]; do shift; done; out=$2 ;;
esac
mkdir -p "${out%/*}"
printf '#!/bin/sh\\n# %s\\n' "${GOOS-here}" > "$out"
chmod +x "$out"
"""


@pytest.fixture
def build(tmp_path):
    (tmp_path / "go").write_text(GO)
    (tmp_path / "go").chmod(0o755)

    def run(*names: str, **variables: str) -> dict[str, str]:
        """For which system each binary is that has a link of its plain name; an AssertionError where it fails."""
        env = {name: value for name, value in os.environ.items() if name != "GOOS"}
        env |= {"XDG_CACHE_HOME": str(tmp_path), "PATH": f"{tmp_path}:{env['PATH']}", **variables}
        done = subprocess.run([BUILD, *names], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        links = [path for path in (tmp_path / "asya" / "bin").iterdir() if path.is_symlink()]
        return {path.name: path.read_text().split()[-1] for path in links}

    return run


def test_without_names_it_builds_what_the_tests_want(build):
    assert build() == dict.fromkeys(("versitygw", "gofakes3", "gcsd"), "here")


def test_what_goes_into_images_is_built_for_them_and_nothing_else_is(build):
    assert build("versitygw", "gcsd", GOOS="plan9") == {"versitygw": "plan9", "gcsd": "plan9"}
    assert build("versitygw", "gcsd") == {"versitygw": "here", "gcsd": "here"}
    assert build("gcsd", GOOS="plan9")["gcsd"] == "plan9"


def test_a_name_that_it_does_not_know(build):
    with pytest.raises(AssertionError, match="versitygw2"):
        build("versitygw2")


PROMTOOL = BUILD.parent / "promtool.sh"


def fetched(tmp_path: Path, **programs: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """What promtool.sh does where these programs are all there is, and where it puts promtool."""
    for name in ("bash", "mkdir", "mktemp", "rm", "mv", "ln", "tar", "env"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([str(PROMTOOL)], env=env, capture_output=True, text=True, timeout=60, check=False)
    return done, tmp_path / "cache" / "asya" / "bin" / "promtool"


def test_without_apt_promtool_is_left_out(tmp_path):
    done, promtool = fetched(tmp_path)
    assert (done.returncode, promtool.exists()) == (0, False), done.stderr
    assert "the tests of the alert rules are left out" in done.stderr


def test_a_promtool_that_is_there_is_taken(tmp_path):
    done, promtool = fetched(tmp_path, promtool="exit 0")
    assert done.returncode == 0, done.stderr
    assert promtool.resolve() == tmp_path / "promtool"


def test_promtool_comes_out_of_debians_package(tmp_path):
    """With lists of one's own where the system's do not have it."""
    apt = """
    echo "$*" >> "$XDG_CACHE_HOME/../apt"
    case "$*" in *download*) [[ "$*" == *Dir::State::lists* ]] || exit 100; : > prometheus_1.deb ;; esac
    """
    package = 'cd "$XDG_CACHE_HOME"; mkdir -p usr/bin; echo new > usr/bin/promtool; tar -c ./usr/bin/promtool'
    done, promtool = fetched(tmp_path, **{"apt-get": apt, "dpkg-deb": package})
    assert done.returncode == 0, done.stderr
    assert promtool.read_text() == "new\n"
    calls = (tmp_path / "apt").read_text().splitlines()
    assert [call.split()[-1] for call in calls] == ["prometheus", "update", "prometheus"]
