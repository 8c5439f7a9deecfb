"""Predict the host memory of a trial: the weights, states and copies that its first worker holds.

In: the settings and the nodes. Out: bytes, a line of the plan and a warning. On a GPU these are copies on their way to
the disk and the base checkpoint for the next trial; on a CPU the model itself is there too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.speed import largest_base, trained_weights
from sweeps.wording import many, size

_WEIGHT, _MOMENTS = 4, 8
"""Bytes per weight, all float32: itself or its gradient, and Adam's two moments."""
_KEPT_BASES = 2
"""A worker keeps so many base checkpoints in memory (hausa_asr/model/wav2vec2.py)."""


def host_memory(config: SweepConfig) -> float | None:
    """Bytes of host memory of a trial's first worker, activations and programs left out; None if the base is not known.

    It holds the base checkpoints, the best model until that is written, and on a GPU the checkpoint that is being
    written; on a CPU also model, gradients and optimizer, from which that is written directly.
    """
    base = largest_base(config)
    if base is None:
        return None
    learns = trained_weights(config, base)
    kept = base.weights * _WEIGHT * min(len(config.bases), _KEPT_BASES) + learns * _WEIGHT
    if config.resources.gpus_per_worker:
        return kept + learns * (_WEIGHT + _MOMENTS)
    return kept + base.weights * _WEIGHT + learns * (_WEIGHT + _MOMENTS)


def in_words(config: SweepConfig) -> str:
    """The plan's line on memory."""
    needed = host_memory(config)
    if needed is None:
        return "not known"
    more = "" if config.resources.gpus_per_worker else ", and the activations of a micro-batch"
    return f"about {size(needed)} of host memory for the weights, states and copies of each trial{more}"


def too_little(config: SweepConfig, slots: int, nodes: Sequence[Mapping[str, float]]) -> str | None:
    """A warning if the trials that lie on a node together need more memory than it has; None if they fit.

    Args:
        config: the sweep's settings.
        slots: trials side by side, spread evenly over the nodes.
        nodes: the resources of each; `memory` in bytes, where it is known.
    """
    needed, least = host_memory(config), min((node.get("memory", 0.0) for node in nodes), default=0.0)
    together = -(-slots // len(nodes)) if nodes else 0
    if needed is None or not least or needed * together <= least:
        return None
    return (
        f"{many(together, 'trial')} on a node take {size(needed * together)} of host memory or more, but a node has "
        f"{size(least)}"
    )
