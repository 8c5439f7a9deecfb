"""What the plan is made for: of a cluster's nodes those with the labels that workers want, and the head's memory."""

from __future__ import annotations

from typing import Any

from hausa_asr.settings.sweep import SweepConfig
from sweeps.on_ray.cluster import resources_for_workers
from sweeps.planning.memory import too_little
from sweeps.planning.slots import HEAD, admit

KIND = "ray.io/accelerator-type"
LABELS = {KIND: "H100"}


def node(kind: str = "", alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources, "Labels": {KIND: kind} if kind else {}}


HEAD_NODE = {**node(CPU=8.0, GPU=8.0), "Resources": {HEAD: 1.0, "CPU": 8.0, "GPU": 8.0, "memory": 16e9}}
NODES = [HEAD_NODE, *[node("H100", CPU=32.0, GPU=8.0, memory=512e9)] * 16, node("A100", CPU=32.0, GPU=8.0),
         node("H100", alive=False, CPU=32.0, GPU=8.0)]  # fmt: skip


def config(labels: dict[str, str]) -> SweepConfig:
    resources = {"gpus_per_worker": 1, "labels": labels}
    return SweepConfig.model_validate({"resources": resources, "search": {"trials": 999}})


def test_slots_are_planned_on_the_nodes_with_the_labels_only() -> None:
    assert admit(config(LABELS).resources, resources_for_workers(NODES, LABELS), 999).slots == 16 * 8
    assert admit(config({}).resources, resources_for_workers(NODES, {}), 999).slots == 18 * 8


def test_a_head_without_the_labels_is_warned_of_when_its_memory_is_too_little() -> None:
    [warning] = too_little(config(LABELS), 128, resources_for_workers(NODES, LABELS))
    assert "on the head node" in warning and "16.0 GB" in warning
