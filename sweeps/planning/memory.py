"""Predict the host memory of a trial: the weights, states and copies that its first worker holds.

In: the settings and the nodes. Out: bytes, a line of the plan and warnings. On a GPU these are copies on their way to
the disk and the base checkpoint for the next trial; on a CPU the model itself is there too. Beside that, each slot has
processes of Ray's: two on the head, the others anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.disk import state_bytes
from sweeps.planning.slots import HEAD
from sweeps.planning.speed import NO_BFLOAT16, largest_base, trained_weights, values
from sweeps.wording import many, size

_WEIGHT, _MOMENTS = 4, 8
"""Bytes per weight, all float32: itself or its gradient, and Adam's two moments."""
_ON_HEAD, _ANYWHERE = 240 * 2**20, 180 * 2**20
"""Of Ray's processes of a slot: its actor and Ray Train's synchronization, and desk and watcher, which are anywhere
(`python benchmarks/slot_memory.py`)."""


def host_memory(config: SweepConfig) -> float | None:
    """Bytes of host memory of a trial, activations and programs left out; None if the base is not known.

    Its first worker holds one base checkpoint (more only if memory allows, see `hausa_asr/model/kept.py`), a copy
    of what training resumes from while that is written (with what is kept for the mean at the trial's end), and beside
    it the best model, and that of the next evaluation; on a CPU also model, gradients, optimizer and a moving average.
    """
    base = largest_base(config)
    if base is None:
        return None
    learns = trained_weights(config, base)
    copies = learns * state_bytes(config) + 2 * learns * _WEIGHT
    # Each worker keeps the weights for the mean at the end; those of a trial are on one node, if they fit.
    copies += (config.resources.most_workers - 1) * learns * _WEIGHT * max(values(config, "average"))
    kept = base.weights * _WEIGHT + copies
    if config.resources.gpus_per_worker:
        return kept
    average = _WEIGHT if max(values(config, "ema_fraction")) else 0
    return kept + base.weights * _WEIGHT + learns * (_WEIGHT + _MOMENTS + average)


def in_words(config: SweepConfig) -> str:
    """The plan's line on memory."""
    needed = host_memory(config)
    if needed is None:
        return "not known"
    more = "" if config.resources.gpus_per_worker else ", and the activations of a micro-batch"
    return f"about {size(needed)} of host memory for the weights, states and copies of each trial{more}"


def in_float32(config: SweepConfig, gpus: Sequence[str]) -> list[str]:
    """Warn where GPUs are too old for bfloat16, so that activations take about twice the memory.

    Args:
        config: the sweep's settings.
        gpus: the kinds of GPU in the cluster.
    """
    old, base = sorted(kind for kind in NO_BFLOAT16 if any(kind in gpu for gpu in gpus)), largest_base(config)
    if not old or base is None or not config.resources.gpus_per_worker:
        return []
    taken = base.weights * _WEIGHT + trained_weights(config, base) * (_WEIGHT + _MOMENTS)
    return [f"{' and '.join(old)} GPUs have no bfloat16, so trials compute in float32: {size(taken)} of a GPU's memory "
            "before any audio. docs/troubleshooting.md has sizes that fit 16 GB"]  # fmt: skip


def too_little(
    config: SweepConfig, slots: int, nodes: Sequence[Mapping[str, float]], features: float | None = None
) -> list[str]:
    """Warn where the trials or the cached features of a node, or the slots' processes on the head, exceed its memory.

    Args:
        config: the sweep's settings.
        slots: trials side by side, spread evenly over the nodes.
        nodes: the resources of each; `memory` in bytes, where it is known.
        features: bytes that are cached; None if that is not known.
    """
    warnings, needed = [], host_memory(config)
    memories = [node.get("memory", 0.0) for node in nodes if node.get("CPU", 1.0)]  # a head often has none
    least, together = min(memories, default=0.0), -(-slots // len(memories)) if memories else 0
    if needed is not None and least and (needed + _ANYWHERE) * together > least:
        taken = size((needed + _ANYWHERE) * together)
        warnings.append(f"{many(together, 'trial')} on a node take {taken} of host memory or more, but a node has "
                        f"{size(least)}")  # fmt: skip
    left = least - (needed or 0.0) * together
    if least and features and features > left > 0:
        warnings.append(f"{size(features)} of cached features are more than the {size(left)} of memory that the trials "
                        "on a node leave free, so they come from the disk in every pass over train; where that is slow "
                        "finetune.feature_cache=off is faster")  # fmt: skip
    head = next((node.get("memory", 0.0) for node in nodes if HEAD in node), 0.0)
    if head and slots * _ON_HEAD > head:
        warnings.append(f"{many(slots, 'slot')} take {size(slots * _ON_HEAD)} of memory on the head node, which has "
                        f"{size(head)}: choose a larger one, or set resources.slots")  # fmt: skip
    return warnings
