"""The pure core stays pure: no network, no cluster, no event loop, no files."""

import subprocess
import sys

PURE = (
    "admission",
    "api",
    "certificates",
    "conditions",
    "definition",
    "desired",
    "guard",
    "identity",
    "inject",
    "merge",
    "refusals",
    "render",
    "settings",
    "state",
)
SHELL = ("kopf", "aiohttp", "kubernetes", "kubernetes_asyncio", "asyncio", "socket", "prometheus_client")


def test_pure_modules_import_no_shell():
    imports = "; ".join(f"import asya_operator.{name}" for name in PURE)
    # pydantic looks for asyncio by itself; what counts is what comes on top of it.
    script = f"""
import sys, pydantic, pydantic.alias_generators, yaml, cryptography.x509, difflib
before = set(sys.modules)
{imports}
print(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}} & set({SHELL!r})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
