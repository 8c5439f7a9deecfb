"""Plan how many trials run side by side, and refuse a trial that fits nowhere.

A trial takes a *slot*: a group of workers, each wholly on one node. Everything else of a sweep (Tune's actors, the
desks) takes no CPU, but a little of the head node's marker resource, which keeps it on the head. The plan is for the
nodes at the start; `on_ray.capacity` counts again while the sweep runs.

In: the resources of one trial and of the nodes, from Ray or, without Ray, of this machine. Out: a `SlotPlan`. Called
before a sweep starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hausa_asr.errors import UserError
from hausa_asr.settings.sweep import ClusterSettings, ResourceSettings
from sweeps.planning.groups import group_sizes, range_in_words
from sweeps.wording import many

HEAD = "node:__internal_head__"
_DRIVER = Path("/proc/driver/nvidia/gpus")
_KIND = "accelerator_type:"
"""Before the kind of a node's GPUs, in Ray's resources."""
_HEAD_SHARE = 0.0002
"""Of the head's marker, so that there is room for 5,000 slots."""


@dataclass(frozen=True)
class SlotPlan:
    """How many trials run side by side, and the resources that each asks for.

    Attributes:
        slots: trials side by side.
        slot_resources: for Ray Tune, per slot: no CPU, a share of the head's marker.
        worker_resources: for each Ray Train worker.
        threads: PyTorch threads per worker.
        gpus: the kinds of GPU in the cluster, as Ray or the driver names them; none if that is not known.
        labels: what a worker's node must have.
        workers: of each slot, the largest group first.
    """

    slots: int
    slot_resources: dict[str, float]
    worker_resources: dict[str, float]
    threads: int
    gpus: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    workers: tuple[int, ...] = ()


def admit(wanted: ResourceSettings, nodes: Sequence[Mapping[str, float]], trials: int, grows: bool = False) -> SlotPlan:
    """Compute how many slots fit on the cluster, and of a range of workers how many each has (`planning.groups`).

    Args:
        wanted: the resources of one trial.
        nodes: the resources of each living node, as `ray.nodes()` names them.
        trials: of the sweep; more slots than that are of no use.
        grows: the cluster may get more nodes, so as many slots as the settings ask for are taken to fit.

    Raises:
        UserError: not even one trial fits.
    """
    workers = sum(workers_on(node, wanted) for node in nodes)
    sizes = sizes_on(nodes, wanted)
    slots = min(len(sizes), trials, wanted.slots or trials)
    if grows and wanted.slots:
        slots = min(wanted.slots, trials)
    if slots < 1:
        cpus = sum(node.get("CPU", 0) for node in nodes)
        gpus = sum(node.get("GPU", 0) for node in nodes)
        raise UserError(
            f"A trial takes {range_in_words(wanted)} of {many(wanted.cpus_per_worker, 'CPU')} and "
            f"{many(wanted.gpus_per_worker, 'GPU')}, but the cluster ({many(len(nodes), 'node')}, {many(cpus, 'CPU')}, "
            f"{many(gpus, 'GPU')}) has room for {many(workers, 'such worker')}.",
            where="resources",
            fix=_what_would_run(wanted, workers, cpus, gpus, nodes),
        )
    per_worker = {"CPU": wanted.cpus_per_worker}
    if wanted.gpus_per_worker:
        per_worker["GPU"] = wanted.gpus_per_worker
    return SlotPlan(
        slots=slots,
        slot_resources={"CPU": 0, HEAD: _HEAD_SHARE},
        worker_resources=per_worker,
        threads=max(1, int(wanted.cpus_per_worker)),
        labels=wanted.labels,
        workers=tuple([*sizes, *[wanted.most_workers] * slots][:slots]),
        gpus=tuple(sorted({key.partition(":")[2] for node in nodes for key in node if key.startswith(_KIND)})),
    )


def sizes_on(nodes: Sequence[Mapping[str, float]], wanted: ResourceSettings) -> list[int]:
    """How many workers each trial has for which these resources have room, the largest groups first."""
    return group_sizes({str(number): workers_on(node, wanted) for number, node in enumerate(nodes)}, wanted)


def fits_on(nodes: Sequence[Mapping[str, float]], wanted: ResourceSettings) -> bool:
    """Whether these resources have room for a trial."""
    return sum(workers_on(node, wanted) for node in nodes) >= wanted.least_workers


def has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a node's labels are those that workers want."""
    return all(labels.get(name) == value for name, value in wanted.items())


def stock_would_hang(wanted: ResourceSettings, nodes: Sequence[Mapping[str, float]], trials: int) -> bool:
    """Whether Ray Tune's documented pattern, one driver of 1 CPU per trial, would wait for ever on this cluster.

    Tune starts drivers while a CPU is free, and each then asks for its workers. If the drivers leave fewer CPUs than
    the workers of one trial take, no trial ever gets its workers.

    Args:
        wanted, nodes, trials: as for `admit`.
    """
    cpus = sum(int(node.get("CPU", 0)) for node in nodes)
    return cpus - min(trials, cpus) < wanted.least_workers * wanted.cpus_per_worker


def local_nodes(cluster: ClusterSettings) -> list[dict[str, float]]:
    """List the nodes to plan for without Ray: those of the settings, else this machine.

    Raises:
        UserError: a node of the settings has no CPU, so nothing could run on it.
    """
    if not cluster.nodes:
        kinds = {f"{_KIND}{kind}": 1.0 for kind in gpu_kinds()}
        memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        cpus = float(cluster.local_cpus or usable_cpus())
        return [{"CPU": cpus, "GPU": float(usable_gpus()), "memory": memory, **kinds}]
    for number, node in enumerate(cluster.nodes):
        if node.get("CPU", 0) <= 0:
            raise UserError(
                f"A node has no CPU: {dict(node)}.",
                where=f"cluster.nodes.{number}",
                fix="Write its resources with Ray's names, such as {CPU: 32, GPU: 8}.",
            )
    return [dict(node) for node in cluster.nodes]


def usable_cpus() -> int:
    """Count the CPUs that this process may use, by affinity and the container's quota in whole CPUs, as Ray does."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(allowed, max(1, int(float(quota) / float(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return allowed


def usable_gpus() -> int:
    """Count the NVIDIA GPUs of this machine that CUDA_VISIBLE_DEVICES shows."""
    there = len(_gpus(_DRIVER))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return there
    return min(there, sum(one.strip() not in ("", "-1", "NoDevFiles") for one in visible.split(",")))


def gpu_kinds(driver: Path | None = None) -> set[str]:
    """The kinds of the NVIDIA GPUs here, such as `NVIDIA H100 80GB HBM3`, as the driver names them."""
    return {*filter(None, _gpus(driver or _DRIVER))}


def _gpus(driver: Path) -> list[str]:
    """The name of each NVIDIA GPU of this machine, "" where it has none: by the driver's files, else by NVML.

    A container may hide the files (gVisor does, and WSL2 has none), and NVML is what Ray asks.
    """
    if folders := sorted(driver.iterdir()) if driver.is_dir() else []:
        return [_model(folder / "information") for folder in folders]
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            count = pynvml.nvmlDeviceGetCount()
            return [str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(n))) for n in range(count)]
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no library, no driver, no right to ask: then there is none to plan for
        return []


def _model(file: Path) -> str:
    """A GPU's name in the driver's file of it; "" if there is none."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Model:")), "")


def workers_on(node: Mapping[str, float], wanted: ResourceSettings) -> int:
    """How many workers a node's resources have room for."""
    fits = node.get("CPU", 0) / wanted.cpus_per_worker
    if wanted.gpus_per_worker:
        gpus = node.get("GPU", 0)
        # A worker with part of a GPU never gets parts of two.
        whole = int(gpus) * int(1 / wanted.gpus_per_worker) if wanted.gpus_per_worker < 1 else 0
        fits = min(fits, whole if whole else gpus / wanted.gpus_per_worker)
    return int(fits + 1e-9)


def _what_would_run(
    wanted: ResourceSettings, workers: int, cpus: float, gpus: float, nodes: Sequence[Mapping[str, float]]
) -> str:
    if workers >= 1:
        setting = "workers_per_trial.min" if wanted.has_range else "workers_per_trial"
        return f"Set resources.{setting} to {workers} or less, or add nodes to the cluster."
    if wanted.gpus_per_worker and not gpus:
        return "There is no GPU: set resources.gpus_per_worker=0 to train on CPUs, or name a cluster that has one."
    most = max((node.get("CPU", 0) for node in nodes), default=0)
    return f"Set resources.cpus_per_worker to {most:g} or less, or add nodes to the cluster."
