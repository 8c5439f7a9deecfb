"""The templates of cluster/: what would hurt a user who applies them as they are, found without a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
YAMLS = sorted(path for path in CLUSTER.rglob("*.y*ml"))
SECRET = re.compile(r"(password|secret|token|access_?key)\w*", re.I)


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((CLUSTER / name).read_text(encoding="utf-8")))


def kubernetes() -> Iterator[dict[str, Any]]:
    for path in sorted((CLUSTER / "kubernetes").glob("*.yaml")):
        yield from documents(f"kubernetes/{path.name}")


CLUSTER_SPEC = documents("kubernetes/raycluster.yaml")[0]["spec"]
HEAD = CLUSTER_SPEC["headGroupSpec"]["template"]["spec"]
WORKERS = CLUSTER_SPEC["workerGroupSpecs"]
JOB = documents("kubernetes/rayjob.yaml")[0]
PODS = {
    "head": HEAD,
    "worker": WORKERS[0]["template"]["spec"],
    "submit": JOB["spec"]["submitterPodTemplate"]["spec"],
}
COMPOSE = documents("mlflow/compose.yaml")[0]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(CLUSTER)))
def test_every_yaml_parses(path: Path) -> None:
    assert all(documents(str(path.relative_to(CLUSTER))))


@pytest.mark.parametrize("pod", PODS)
def test_pods_pass_the_restricted_standard(pod: str) -> None:
    """What the namespace demands, so none of them is refused; and a root that can't be written to."""
    spec = PODS[pod]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    writable = {
        mount["mountPath"] for c in spec["containers"] for mount in c["volumeMounts"] if not mount.get("readOnly")
    }
    assert {"/tmp", "/home/ray"} <= writable, "Ray and the libraries write there"
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert set(container["resources"]) == {"requests", "limits"}
        assert "memory" in container["resources"]["limits"], "without a limit one trial ends its node"
    mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    labels = next(d for d in kubernetes() if d["kind"] == "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_images_are_pinned_and_one() -> None:
    images = {container["image"] for spec in PODS.values() for container in spec["containers"]}
    assert len(images) == 1, "head and workers must be of one build"
    of_compose = {service["image"] for service in COMPOSE["services"].values()}
    for image in images | of_compose | {documents("cloud/aws.yaml")[0]["docker"]["image"]}:
        tag = image.rpartition("/")[2].partition(":")[2]
        assert tag and tag != "latest", image
    assert images == {documents("cloud/aws.yaml")[0]["docker"]["image"]}


def test_what_is_fetched_fits_on_its_disk() -> None:
    """Half of it, since features, the hub's checkpoints, Ray's files and, off Kubernetes, system and image come beside.

    Nothing is cleared away before the limit is reached, and a pod whose volume is full is ended.
    """
    aws, sky = documents("cloud/aws.yaml")[0], documents("skypilot/sweep.yaml")[0]
    disks = [
        node["node_config"]["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"]
        for node in aws["available_node_types"].values()
    ]
    found = [(" ".join(aws["docker"]["run_options"]), min(disks)), (sky["run"], sky["resources"]["disk_size"])]
    for name in ("head", "worker"):
        container, volumes = PODS[name]["containers"][0], {v["name"]: v for v in PODS[name]["volumes"]}
        given = " ".join(f"{one['name']}={one['value']}" for one in container["env"] if "value" in one)
        place = re.search(r"HAUSA_ASR_SCRATCH=(\S+)", given)
        assert place, name
        mount = max(
            (m for m in container["volumeMounts"] if f"{place[1]}/".startswith(f"{m['mountPath']}/")),
            key=lambda m: len(m["mountPath"]),
        )
        size = re.fullmatch(r"(\d+)Gi", volumes[mount["name"]]["emptyDir"]["sizeLimit"])
        assert size and "medium" not in volumes[mount["name"]]["emptyDir"], "memory is no disk"
        found.append((given, int(size[1])))
    for given, disk_gb in found:
        limit = re.search(r"HAUSA_ASR_SCRATCH_GB=(\d+)", given)
        assert limit and "HAUSA_ASR_SCRATCH=" in given, given
        assert 25 <= int(limit[1]) <= disk_gb / 2, given


def test_secrets_come_by_reference_and_none_is_in_a_file() -> None:
    for spec in PODS.values():
        for variable in spec["containers"][0].get("env", []):
            if SECRET.search(variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable
    assert CLUSTER_SPEC["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    assert not [d for d in kubernetes() if d["kind"] == "Secret"]
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name):
                assert re.fullmatch(r"\$\{\w+:\?.*\}", value), f"{name} must come from .env, and be asked for"
    example = (CLUSTER / "mlflow/.env.example").read_text()
    assert all(line.endswith("=") for line in example.splitlines() if not line.startswith("#"))
    assert ".env" in (CLUSTER / "mlflow/.gitignore").read_text().split()
    for file in CLUSTER.rglob("*"):
        if file.is_file() and file.parent.name not in ("locks", "__pycache__") and file.name != "requirements.txt":
            found = re.findall(
                r"AKIA[0-9A-Z]{16}|-----BEGIN|://[^\s/${]+:[^\s/${@]+@", file.read_text(encoding="utf-8")
            )
            assert not found, f"{file}: {found}"


def test_the_head_is_on_demand_and_workers_on_spot() -> None:
    def terms(spec: dict[str, Any]) -> list[Any]:
        rule = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        return rule["nodeSelectorTerms"]  # type: ignore[no-any-return]

    kept_out = {one["key"]: one["operator"] for term in terms(HEAD) for one in term["matchExpressions"]}
    wanted = {
        one["key"] for group in WORKERS for term in terms(group["template"]["spec"]) for one in term["matchExpressions"]
    }
    assert len(terms(HEAD)) == 1, "terms are alternatives: a second one would let spot nodes in"
    assert set(kept_out) == wanted and set(kept_out.values()) <= {"NotIn", "DoesNotExist"}
    assert "tolerations" not in HEAD
    assert CLUSTER_SPEC["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in WORKERS:
        assert 0 <= group["minReplicas"] < group["maxReplicas"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert int(limits["nvidia.com/gpu"]) >= 1 and int(limits["cpu"]) >= 4, "the presets want 4 CPUs per worker"
        assert group["template"]["spec"]["automountServiceAccountToken"] is False
    assert CLUSTER_SPEC["enableInTreeAutoscaling"]


def test_names_match_each_other() -> None:
    by_kind = {(d["kind"], d["metadata"].get("name")): d for d in kubernetes() if "metadata" in d}
    name = ("RayCluster", "hausa-asr")
    assert name in by_kind
    assert JOB["spec"]["clusterSelector"] == {"ray.io/cluster": name[1]}
    budget = by_kind["PodDisruptionBudget", "head"]["spec"]["selector"]["matchLabels"]
    assert budget == {"ray.io/cluster": name[1], "ray.io/node-type": "head"}
    claim = next(v for v in HEAD["volumes"] if v["name"] == "shared")["persistentVolumeClaim"]["claimName"]
    assert by_kind["PersistentVolumeClaim", claim]["spec"]["accessModes"] == ["ReadWriteMany"]
    policies = [d["spec"] for d in kubernetes() if d["kind"] == "NetworkPolicy"]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies, "closed unless another one opens"
    label = JOB["spec"]["submitterPodTemplate"]["metadata"]["labels"]
    assert label in [p["podSelector"].get("matchLabels") for p in policies], "the submitter could reach nothing"
    assert label in [f["podSelector"]["matchLabels"] for p in policies for i in p.get("ingress", []) for f in i["from"]]
    assert {d["metadata"]["namespace"] for d in kubernetes() if "metadata" in d and d["kind"] != "Namespace"} == {
        "hausa-asr"
    }


def test_ray_has_the_version_of_the_lock() -> None:
    lock = (CLUSTER / "locks/cuda.txt").read_text()
    assert f"\nray=={CLUSTER_SPEC['rayVersion']} " in lock


def test_entrypoints_name_files_that_the_image_has() -> None:
    image = (CLUSTER / "Containerfile").read_text()
    words = JOB["spec"]["entrypoint"].split()
    script = Path(words[1])
    assert script.is_relative_to("/app") and (ROOT / script.relative_to("/app")).is_file()
    assert re.search(rf"^COPY .*{script.relative_to('/app')} ", image, re.M)
    settings = Path(words[words.index("--config") + 1]).parent
    assert {"name": "settings", "mountPath": str(settings), "readOnly": True} in HEAD["containers"][0]["volumeMounts"]
    run = documents("skypilot/sweep.yaml")[0]["run"]
    assert (ROOT / re.search(r"python (\S+\.py)", run)[1]).is_file()  # type: ignore[index]
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", image, re.M):
        for one in source.split():
            assert (ROOT / one.replace("${LOCK}", "cpu")).exists(), one
            assert f"!{one.split('/${')[0]}" in (CLUSTER / "Containerfile.dockerignore").read_text().split(), one


def test_images_run_as_nobody_special_and_install_only_what_is_locked() -> None:
    for file in ("Containerfile", "mlflow/Containerfile"):
        text = (CLUSTER / file).read_text()
        assert "USER 1000:1000" in text[text.rindex("FROM") :]
        for command in re.findall(r"pip install [^\n]*(?:\\\n[^\n]*)*", text):
            assert "--no-deps" in command, f"{command}: it would fetch what isn't locked"
        assert "--require-hashes --only-binary :all:" in text
    named = re.findall(r"torch(?:audio)?==([\d.]+)\+cpu", (CLUSTER / "Containerfile").read_text())
    lock = (CLUSTER / "locks/cuda.txt").read_text()
    assert len(named) == 2 and f"\ntorch=={named[0]} " in lock and f"\ntorchaudio=={named[1]} " in lock


def test_compose_publishes_nothing_but_on_loopback() -> None:
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert list(published) == ["mlflow"]
    assert all(port.startswith("127.0.0.1:") for port in published["mlflow"])
    server = COMPOSE["services"]["mlflow"]
    assert "--app-name basic-auth" in server["command"] and "--allowed-hosts" in server["command"]
    assert "*" not in server["command"]
    for name, service in COMPOSE["services"].items():
        assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
        assert name == "mlflow" or service["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"]["internal"]
    asked = set(re.findall(r"\$\{(\w+):\?", (CLUSTER / "mlflow/compose.yaml").read_text()))
    assert asked == set(re.findall(r"^(\w+)=$", (CLUSTER / "mlflow/.env.example").read_text(), re.M))


@pytest.mark.parametrize("name", ["nodes", "launcher", "registry"])
def test_policies_allow_no_more_than_is_named(name: str) -> None:
    for statement in json.loads((CLUSTER / f"cloud/{name}.iam.json").read_text())["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not [action for action in actions if "*" in action]
        if statement["Resource"] == "*":
            # Amazon gives a registry's login for all of an account's repositories, whichever may then be read.
            assert all(action.startswith("ec2:Describe") or action == "ecr:GetAuthorizationToken" for action in actions)
        assert "NotAction" not in statement and "NotResource" not in statement


def test_the_launchers_nodes_are_those_of_its_policy() -> None:
    """A type or an image that the policy doesn't name can't be started, and one in another region neither."""
    config = documents("cloud/aws.yaml")[0]
    policy = (CLUSTER / "cloud/launcher.iam.json").read_text()
    for kind, node in config["available_node_types"].items():
        given = node["node_config"]
        for value in (given["InstanceType"], given["ImageId"], given["KeyName"], *given["SubnetIds"],
                      *given["SecurityGroupIds"], given["IamInstanceProfile"]["Name"]):  # fmt: skip
            assert f'"{value}"' in policy or f'/{value}"' in policy, value
        assert given["MetadataOptions"]["HttpTokens"] == "required"
        assert ("InstanceMarketOptions" in given) == (kind != config["head_node_type"]), "only workers are on spot"
    assert config["provider"]["region"] in policy and f'"{config["cluster_name"]}"' in policy
    for command in [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]:
        assert "ray start" not in command or "RAY_AUTH_MODE=token" in command
    assert any("auth_token" in target for target in config["file_mounts"])
