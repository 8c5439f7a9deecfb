"""What `kubectl` applies and deletes of cluster/kubernetes, and what its policies then let through."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster/kubernetes"
README = (ROOT / "cluster/README.md").read_text(encoding="utf-8")
OPERATORS = {
    "Helm": {
        "app.kubernetes.io/name": "kuberay-operator", "app.kubernetes.io/instance": "kuberay-operator",
        "app.kubernetes.io/component": "kuberay-operator",
    },
    "kustomize": {"app.kubernetes.io/name": "kuberay", "app.kubernetes.io/component": "kuberay-operator"},
}  # fmt: skip
"""The labels of the operator's pods, by KubeRay 1.6.0's and 1.7.0's chart and config/manager/manager.yaml."""


def documents(file: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one]


def listed() -> list[Path]:
    return [FOLDER / name for name in documents(FOLDER / "kustomization.yaml")[0]["resources"]]


def test_all_files_are_applied_by_one_command() -> None:
    by_name = {ROOT / file for file in re.findall(r"-f (cluster/kubernetes/[\w.]+)", README)}
    assert "kubectl apply -k cluster/kubernetes\n" in README
    assert not by_name & set(listed()), "twice"
    assert by_name | set(listed()) | {FOLDER / "kustomization.yaml"} == set(FOLDER.glob("*.yaml"))


def test_deleting_what_is_applied_together_leaves_the_results() -> None:
    """`kubectl delete -k` takes every object of the kustomization, and a namespace all that is in it."""
    kinds = {one["kind"] for file in listed() for one in documents(file)}
    assert "RayCluster" in kinds and not kinds & {"Namespace", "PersistentVolumeClaim"}
    commands = re.findall(r"^    (kubectl delete \S+)", README, re.M)
    assert commands[-1] == "kubectl delete namespace" and commands.count(commands[-1]) == 1
    warning = README[README.index(commands[-2]) : README.index(commands[-1])]
    assert "**This deletes it too, and every result on it" in warning


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_kubectl_builds_it() -> None:
    built = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, timeout=60)
    assert not built.returncode, built.stderr
    found = [one for one in yaml.safe_load_all(built.stdout) if one]
    wanted = [one for file in listed() for one in documents(file)]
    assert sorted((one["kind"], one["metadata"]["name"]) for one in found) == sorted(
        (one["kind"], one["metadata"]["name"]) for one in wanted
    )
    assert {one["metadata"]["namespace"] for one in found} == {"hausa-asr"}


@pytest.mark.parametrize("install", OPERATORS)
def test_the_operator_may_ask_the_head(install: str) -> None:
    """Else a RayJob's status never follows its job, however the operator was installed."""
    policy = next(one for one in documents(FOLDER / "networkpolicy.yaml") if one["metadata"]["name"] == "jobs-to-head")
    assert any(
        part["podSelector"]["matchLabels"].items() <= OPERATORS[install].items()
        for rule in policy["spec"]["ingress"]
        for part in rule["from"]
        if part.get("namespaceSelector") == {} and {"protocol": "TCP", "port": 8265} in rule["ports"]
    )


def test_the_heads_budget_is_of_a_kind_that_kubernetes_can_count() -> None:
    """Pods of a kind without scale, as a RayCluster, may have a whole number of minAvailable and nothing else."""
    (budget,) = documents(FOLDER / "disruption.yaml")
    assert budget["spec"]["minAvailable"] == 1 and "maxUnavailable" not in budget["spec"]
