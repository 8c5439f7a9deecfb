"""Admission: what will run where. What cannot run is refused before anything starts.

A trial is a *slot*: a group of workers, each wholly on one node. As many slots as fit run side by side; everything
else of a sweep (Tune's actors, the desks) takes no CPU, and the number of slots is capped by a share of the head
node's own marker resource, so that no more slots than fit are ever asked for and none waits for another for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hausa_asr.config import ResourceSettings
from hausa_asr.errors import UserError

HEAD = "node:__internal_head__"
_HEAD_SHARE = 0.9
"""Of the head's marker, so that Ray Train's own helpers, which take a little of it, still start."""


@dataclass(frozen=True)
class Plan:
    """What a sweep will hold.

    Attributes:
        slots: trials side by side.
        slot_resources: what Ray Tune asks for per slot: no CPU, a share of the head's marker.
        worker_resources: what each Ray Train worker asks for.
        threads: PyTorch threads per worker.
    """

    slots: int
    slot_resources: dict[str, float]
    worker_resources: dict[str, float]
    threads: int


def admit(wanted: ResourceSettings, nodes: Sequence[Mapping[str, float]], trials: int) -> Plan:
    """How many slots fit on the cluster.

    Args:
        wanted: what one trial takes.
        nodes: the resources of each living node, as `ray.nodes()` names them.
        trials: how many trials there will be; more slots than that are of no use.

    Raises:
        UserError: not even one trial fits.
    """
    workers = sum(_workers_on(node, wanted) for node in nodes)
    slots = min(workers // wanted.workers_per_trial, trials)
    if slots < 1:
        cpus = sum(node.get("CPU", 0) for node in nodes)
        gpus = sum(node.get("GPU", 0) for node in nodes)
        raise UserError(
            f"A trial takes {wanted.workers_per_trial} workers of {wanted.cpus_per_worker:g} CPUs and "
            f"{wanted.gpus_per_worker:g} GPUs, but the cluster ({len(nodes)} nodes, {cpus:g} CPUs, {gpus:g} GPUs) "
            f"has room for {workers} such workers.",
            where="resources",
            fix=_what_would_run(wanted, workers, cpus, gpus, nodes),
        )
    per_worker = {"CPU": wanted.cpus_per_worker}
    if wanted.gpus_per_worker:
        per_worker["GPU"] = wanted.gpus_per_worker
    return Plan(
        slots=slots,
        slot_resources={"CPU": 0, HEAD: int(1e4 * _HEAD_SHARE / slots) / 1e4},  # Ray counts in ten-thousandths
        worker_resources=per_worker,
        threads=max(1, int(wanted.cpus_per_worker)),
    )


def _workers_on(node: Mapping[str, float], wanted: ResourceSettings) -> int:
    fits = node.get("CPU", 0) / wanted.cpus_per_worker
    if wanted.gpus_per_worker:
        gpus = node.get("GPU", 0)
        # A worker with a part of a GPU shares one; it never gets parts of two.
        whole = int(gpus) * int(1 / wanted.gpus_per_worker) if wanted.gpus_per_worker < 1 else 0
        fits = min(fits, whole if whole else gpus / wanted.gpus_per_worker)
    return int(fits + 1e-9)


def _what_would_run(
    wanted: ResourceSettings, workers: int, cpus: float, gpus: float, nodes: Sequence[Mapping[str, float]]
) -> str:
    if workers >= 1:
        return f"Set resources.workers_per_trial to {workers} or less, or add nodes to the cluster."
    if wanted.gpus_per_worker and not gpus:
        return "There is no GPU: set resources.gpus_per_worker=0 to train on CPUs, or name a cluster that has one."
    most = max((node.get("CPU", 0) for node in nodes), default=0)
    return f"Set resources.cpus_per_worker to {most:g} or less, or add nodes to the cluster."
