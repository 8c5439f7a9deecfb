"""The AWS template by Ray's own launcher: what it would start, and what its image must have. EC2 is a stand-in."""

from __future__ import annotations

import ast
import copy
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.command_runner import _with_interactive
from ray.autoscaler._private.util import prepare_config, validate_config

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # last: it has a `sweeps` too
from ray_nodes import may_mount

from helpers.commented_out import taken_in

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / "cluster/cloud/aws.yaml").read_text(encoding="utf-8")
IMAGE = (ROOT / "cluster/Containerfile").read_text(encoding="utf-8").rpartition("\nFROM ")[2]
"""Its last stage."""


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An account in the template's region, with nothing in it."""
    moto = pytest.importorskip("moto")
    boto3 = pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    with moto.mock_aws():
        yield boto3.client("ec2", region_name=yaml.safe_load(TEMPLATE)["provider"]["region"])


def account(ec2: Any, folder: Path) -> str:
    """The template for an account that has what the template asks for."""
    import boto3

    network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=network, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    group = ec2.create_security_group(GroupName="ours", Description="ours", VpcId=network)["GroupId"]
    ec2.create_key_pair(KeyName="hausa-asr")
    key = folder / "hausa-asr.pem"
    key.touch()
    roles = boto3.client("iam")
    for name in set(re.findall(r"IamInstanceProfile: {Name: ([\w-]+)}", TEMPLATE)):
        roles.create_instance_profile(InstanceProfileName=name)
    ours = {
        "ami-00000000000000000": ec2.describe_images()["Images"][0]["ImageId"],
        "subnet-00000000000000000": subnet, "sg-00000000000000000": group, "~/.ssh/hausa-asr.pem": str(key),
    }  # fmt: skip
    text = TEMPLATE
    for placeholder, value in ours.items():
        assert placeholder in text
        text = text.replace(placeholder, value)
    return text


def test_ray_starts_what_the_template_says(ec2: Any, tmp_path: Path) -> None:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = prepare_config(yaml.safe_load(account(ec2, tmp_path)))
    validate_config(config)  # by the schema in Ray's package
    config = AWSNodeProvider.bootstrap_config(config)
    config = AWSNodeProvider.fillout_available_node_types_resources(config)
    kinds = config["available_node_types"]
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    started = {}
    for kind in ("head", "spot-gpu"):
        tags = {"ray-node-type": "worker", "ray-user-node-type": kind}
        ((name, _),) = provider.create_node(copy.deepcopy(kinds[kind]["node_config"]), tags, 1).items()
        (found,) = ec2.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"]
        started[kind] = found
        assert found["MetadataOptions"]["HttpTokens"] == "required"
        (disk,) = found["BlockDeviceMappings"]
        assert disk["Ebs"]["DeleteOnTermination"], "a disk that stays costs money"
        assert len(found["SecurityGroups"]) == 1 and found["SecurityGroups"][0]["GroupName"] == "ours"
        assert found["IamInstanceProfile"]["Arn"].rpartition("/")[2] in ("hausa-asr-head", "hausa-asr-worker")
    assert "InstanceLifecycle" not in started["head"] and started["spot-gpu"]["InstanceLifecycle"] == "spot"
    assert kinds["head"]["resources"]["CPU"] == 0
    assert kinds["spot-gpu"]["resources"]["GPU"] == 1 and kinds["spot-gpu"]["resources"]["CPU"] >= 4


def test_the_login_to_a_registry_fits_its_policy() -> None:
    config = yaml.safe_load(taken_in(TEMPLATE, "initialization_commands:"))
    validate_config(prepare_config(config))
    (login,) = config["initialization_commands"]
    account, region = re.findall(r"(\d+)\.dkr\.ecr\.([\w-]+)\.amazonaws\.com$", login)[0]
    assert f"--region {region} |" in login and region == config["provider"]["region"]
    policy = (ROOT / "cluster/cloud/registry.iam.json").read_text()
    assert f"arn:aws:ecr:{region}:{account}:repository/hausa-asr" in policy


@pytest.mark.parametrize("lock", ["cuda", "cpu"])
def test_the_image_has_what_the_autoscaler_imports(lock: str) -> None:
    """Else the head starts and no worker ever comes."""
    wanted = set()
    for file in (Path(ray.__file__).parent / "autoscaler/_private/aws").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                wanted |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                wanted.add(str(node.module).partition(".")[0])
    wanted -= {"ray", *sys.stdlib_module_names}
    assert {"boto3", "botocore"} <= wanted
    locked = re.findall(r"^([\w.-]+)==", (ROOT / f"cluster/locks/{lock}.txt").read_text(), re.M)
    assert wanted <= set(locked), f"not in {lock}.txt: {wanted - set(locked)}"


def test_the_image_has_the_programs_that_the_launcher_runs() -> None:
    """rsync puts files into a container, and the head reaches new workers by ssh, from within its container."""
    source = (Path(ray.__file__).parent / "autoscaler/_private/command_runner.py").read_text()
    packages = re.search(r"apt-get install (?:--\S+ )*([\w -]+) \\", IMAGE)
    assert packages and IMAGE.index("apt-get install") < IMAGE.index("USER 1000"), "root installs"
    for program, package in {"rsync": "rsync", "ssh": "openssh-client"}.items():
        assert f'["{program}"' in source, "Ray no longer runs it"
        assert package in packages[1].split(), f"{program} is in Debian's {package}"
    called = {word for command in yaml.safe_load(TEMPLATE)["worker_start_ray_commands"] for word in command.split()}
    script = next(word for word in called if word.endswith(".py"))
    assert (ROOT / script.removeprefix("/app/")).is_file()
    assert script.removeprefix("/app/") in (ROOT / "cluster/Containerfile").read_text()
    assert f"!{script.removeprefix('/app/')}" in (ROOT / "cluster/Containerfile.dockerignore").read_text().split()


@pytest.mark.skipif(
    not may_mount() or "profile.d" not in Path("/etc/profile").read_text(),
    reason="needs root and Debian's /etc/profile",
)
def test_the_launchers_shell_finds_the_images_python(tmp_path: Path) -> None:
    """What Ray runs in a container goes through a login shell, for which Debian sets PATH anew."""
    (written,) = re.findall(r"^RUN (echo .* >/etc/profile\.d/\S+)$", IMAGE, re.M)
    venv = tmp_path / "venv/bin"
    venv.mkdir(parents=True)
    for name in ("ray", "python"):
        (venv / name).write_text(f"#!/bin/sh\necho the image has {name}\n")
        (venv / name).chmod(0o755)
    asked = " ".join(_with_interactive("ray --version; python --version"))
    script = f"""
        mount -t tmpfs none /opt && mkdir /opt/venv && mount --bind {tmp_path}/venv /opt/venv
        mount -t tmpfs none /etc/profile.d && {written}
        {asked}
    """
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").touch()
    shell = subprocess.run(
        ["unshare", "-m", "bash", "-ec", script], capture_output=True, text=True,
        env={"HOME": str(home), "PATH": os.environ["PATH"], "TERM": "dumb"}, start_new_session=True,
    )  # fmt: skip
    assert shell.stdout.split("\n")[:2] == ["the image has ray", "the image has python"], shell.stdout + shell.stderr
