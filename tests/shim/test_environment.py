"""The quick reading of the shim's environment says what the table says."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asya_contract.env import EnvError, ShimEnv, parse_mounts
from asya_shim.environment import read_environment

MOUNTS = st.one_of(
    st.sampled_from(
        [
            "",
            "state:/state",
            "state:/state:",
            "state:/state:write=buffered",
            "state:/state:x=y,z=1",
            "state:/state;b:/b:write=buffered",
            "state:/state;",
            ";",
            "state:/",
            "state:relative",
            "state",
            "state:/a//b",
            "state:/a/../b",
            "State:/state",
            "-:/state",
            "a-b:/state",
            "a" * 32 + ":/s",
            "a" * 33 + ":/s",
            ":/state",
            "state:/state:write",
            "state:/stäte",
        ]
    ),
    st.text(alphabet="ab-:;/=.,w", max_size=16),
)
ENVIRONS = st.fixed_dictionaries(
    {"ASYA_STATE_PROXY_MOUNTS": MOUNTS},
    optional={
        "ASYA_STATE_SOCKET_DIR": st.sampled_from(["", "/run/x"]),
        "ASYA_STATE_REQUEST_TIMEOUT": st.sampled_from(["", "5s", "250ms", "soon"]),
        "ASYA_STATE_MAX_FILE_SIZE": st.sampled_from(["", "1Mi", "1", "x"]),
        "ASYA_ACTOR": st.sampled_from(["", "team/chat"]),
    },
)


@given(ENVIRONS)
def test_agrees_with_the_table(environ: Mapping[str, str]) -> None:
    try:
        full = ShimEnv.from_env(environ)
        mounts = [(mount.name, mount.path) for mount in parse_mounts(full.mounts)]
    except EnvError as error:
        with pytest.raises(EnvError) as caught:
            read_environment(environ)
        assert str(caught.value) == str(error)  # noqa: PT017
        return
    quick, found = read_environment(environ)
    assert [(mount.name, mount.path) for mount in found] == mounts
    assert quick.socket_dir == full.socket_dir
    assert quick.request_timeout == full.request_timeout
    assert quick.max_file_size == full.max_file_size
    assert quick.actor == full.actor
