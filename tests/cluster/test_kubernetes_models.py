"""The Kubernetes templates against the types of Kubernetes itself: no field that it doesn't know, none that it lacks.

Types come from Lightkube, which generates them from Kubernetes' API. RayCluster and RayJob are KubeRay's own, in no
package; of those the pods are checked, as KubeRay copies them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

models = pytest.importorskip("lightkube.models")
msgspec = pytest.importorskip("msgspec")
from lightkube.models import core_v1, networking_v1, policy_v1  # noqa: E402

from helpers.commented_out import taken_in  # noqa: E402

FOLDER = Path(__file__).parents[2] / "cluster/kubernetes"
KINDS = {
    "Namespace": core_v1.Namespace, "PersistentVolumeClaim": core_v1.PersistentVolumeClaim,
    "NetworkPolicy": networking_v1.NetworkPolicy, "PodDisruptionBudget": policy_v1.PodDisruptionBudget,
}  # fmt: skip
OF_OTHERS = {"RayCluster", "RayJob", "Kustomization"}


def documents() -> Iterator[dict[str, Any]]:
    for file in sorted(FOLDER.glob("*.yaml")):
        yield from yaml.safe_load_all(file.read_text(encoding="utf-8"))


def with_comments(file: str, *starts: str) -> list[dict[str, Any]]:
    text = (FOLDER / file).read_text(encoding="utf-8")
    for start in starts:
        text = taken_in(text, start)
    return list(yaml.safe_load_all(text))


def pod_templates(value: Any) -> Iterator[dict[str, Any]]:
    """What holds the containers of a pod, wherever it is."""
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield value
        for part in value.values():
            yield from pod_templates(part)
    elif isinstance(value, list):
        for part in value:
            yield from pod_templates(part)


def unknown(given: Any, taken: Any, where: str) -> list[str]:
    """The fields that a type does not have: they are gone after it has read them."""
    if isinstance(given, dict) and isinstance(taken, dict):
        lost = [f"{where}.{name}" for name in given if name not in taken]
        return lost + [
            one for name in given if name in taken for one in unknown(given[name], taken[name], f"{where}.{name}")
        ]
    if isinstance(given, list) and isinstance(taken, list):
        return [one for i, part in enumerate(given) for one in unknown(part, taken[i], f"{where}[{i}]")]
    return []


def check(value: dict[str, Any], kind: Any) -> None:
    taken = msgspec.to_builtins(msgspec.convert(value, kind))  # raises for a wrong type and for what is missing
    assert not unknown(value, taken, kind.__name__)


@pytest.mark.parametrize("document", [d for d in documents() if d["kind"] not in OF_OTHERS],
                         ids=lambda d: f"{d['kind']}-{d['metadata']['name']}")  # fmt: skip
def test_kubernetes_own(document: dict[str, Any]) -> None:
    check(document, KINDS[document["kind"]])


def test_pods() -> None:
    found = [one for document in documents() for one in pod_templates(document)]
    assert len(found) == 3, "of the head, the workers and the submitter"
    for template in found:
        check(template, core_v1.PodTemplateSpec)


def test_what_is_commented_out_fits() -> None:
    """A login for the registry, and an S3 that isn't AWS's: in the places where Kubernetes takes them."""
    cluster = with_comments("raycluster.yaml", "imagePullSecrets: ", "- {name: AWS_ENDPOINT_URL")
    found = [*pod_templates(cluster), *pod_templates(with_comments("rayjob.yaml", "imagePullSecrets: "))]
    assert len(found) == 3
    for template in found:
        check(template, core_v1.PodTemplateSpec)
        assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    variables = [one for template in found for one in template["spec"]["containers"][0].get("env", [])]
    addresses = [one["value"] for one in variables if one["name"] == "AWS_ENDPOINT_URL"]
    assert len(addresses) == 2 and len(set(addresses)) == 1, "of head and workers"
    out = with_comments("networkpolicy.yaml", "- to: [{namespaceSelector")[-1]
    check(out, networking_v1.NetworkPolicy)
    opened = {part["port"] for rule in out["spec"]["egress"] for part in rule["ports"]}
    assert urlsplit(addresses[0]).port in opened


@pytest.mark.parametrize("change", [
    {"terminationGracePeriod": 100}, {"containers": [{"image": "x"}]},
    {"containers": [{"name": "x", "env": [{"name": "A", "value": 50}]}]},
], ids=["unknown", "missing", "not text"])  # fmt: skip
def test_it_sees(change: dict[str, Any]) -> None:
    template = next(pod_templates(list(documents())))
    with pytest.raises((AssertionError, msgspec.ValidationError)):
        check({**template, "spec": {**template["spec"], **change}}, core_v1.PodTemplateSpec)
