"""Names and places, and what keeps the contract importable in any user's container."""

import ast
import sys
from pathlib import Path

import asya_contract
from asya_contract import names
from asya_contract.env import ProxyEnv

PACKAGE = Path(asya_contract.__file__).parent


def test_prefix_of_the_first_mount_is_the_actors():
    assert names.state_prefix("default", "chat-agent") == "default/chat-agent/"
    assert names.state_prefix("default", "chat-agent", "state", "team/") == "team/default/chat-agent/"


def test_prefix_of_a_further_mount_names_it():
    assert names.state_prefix("default", "chat-agent", "cache") == "default/chat-agent@cache/"


def test_no_two_mounts_share_a_prefix():
    prefixes = [names.state_prefix(ns, actor, m) for ns in ("a", "b") for actor in ("a", "b") for m in ("state", "b")]
    for one in prefixes:
        assert [other for other in prefixes if other.startswith(one)] == [one]


def test_the_proxys_default_socket_is_the_default_mounts():
    env = ProxyEnv(backend="memory", bucket="b")
    assert env.socket == f"{names.SOCKET_DIR}/{names.DEFAULT_MOUNT}.sock"


def test_default_secret_names_its_backend():
    assert [names.default_secret(b) for b in names.BACKENDS] == [
        "asya-state-s3",
        "asya-state-gcs",
        "asya-state-redis",
        "asya-state-nats",
    ]


def test_the_contract_imports_the_standard_library_and_itself_alone():
    allowed = set(sys.stdlib_module_names) | {"asya_contract"}
    found = set()
    for module in sorted(PACKAGE.glob("*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module.name}: relative import"
                found.add(str(node.module).split(".")[0])
    assert found
    assert found <= allowed
