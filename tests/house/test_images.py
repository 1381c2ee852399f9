"""The rules by which images are cut (images/root.py) leave what is used."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import botocore
import botocore.session
import pytest
from botocore.loaders import Loader

ROOT = Path(__file__).resolve().parents[2]


def _rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_root", ROOT / "images" / "root.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


RULES = _rules()


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        ("botocore/data/ec2/2016-11-15/service-2.json.gz", True),
        ("botocore/data/s3control/2018-08-20/service-2.json.gz", True),
        ("botocore/data/s3/2006-03-01/service-2.json.gz", False),
        ("botocore/data/sso-oidc/2019-06-10/endpoint-rule-set-1.json.gz", False),
        ("botocore/data/endpoints.json", False),
        ("botocore/data/partitions.json", False),
        ("boto3/data/ec2/2016-11-15/resources-1.json", True),
        ("boto3/data/s3/2006-03-01/resources-1.json", False),
        ("botocore/cacert.pem", False),
        ("uvloop/loop.pyx", True),
        ("uvloop/loop.cpython-313-x86_64-linux-gnu.so", False),
        ("redis/client.py", False),
        ("redis/__pycache__/client.cpython-313.pyc", True),
        ("asya_shim-0.1.0.dist-info/METADATA", False),
    ],
)
def test_what_goes_and_what_stays(name: str, goes: bool) -> None:
    assert RULES.unwanted(name) is goes


def test_each_service_that_leads_to_credentials_is_kept() -> None:
    """By the SDK's source: every client that its providers of credentials and tokens make."""
    called = set()
    for name in ("credentials.py", "tokens.py"):
        source = (Path(botocore.__file__).parent / name).read_text()
        called |= set(
            re.findall(r"(?:client_creator|create_nested_client)\(\s*(?:self\._session,\s*)?['\"]([\w-]+)", source)
        )
    assert {"sts", "sso", "sso-oidc"} <= called
    assert called <= set(RULES.AWS_SERVICES)


def test_clients_are_made_from_the_data_that_is_left(tmp_path: Path) -> None:
    data = Path(botocore.__file__).parent / "data"
    for path in data.rglob("*"):
        if path.is_file() and not RULES.unwanted(f"botocore/data/{path.relative_to(data).as_posix()}"):
            target = tmp_path / path.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    loader = Loader(extra_search_paths=[str(tmp_path)], include_default_search_paths=False)
    assert sorted(loader.list_available_services("service-2")) == sorted(RULES.AWS_SERVICES)
    session = botocore.session.Session()
    session.register_component("data_loader", loader)
    for service in RULES.AWS_SERVICES:
        client = session.create_client(
            service, region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        client.close()
