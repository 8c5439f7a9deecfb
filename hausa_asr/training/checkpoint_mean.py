"""The mean of a trial's last or best weights, in place of those that its last update left.

In: the weights at evaluations, and their scores. Out: their mean, put in the model's place for the trial's last
evaluation. What is scored there is what is saved and exported. Called by the fine-tune.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from hausa_asr.recipe import BEST, order


class CheckpointMean:
    """Keep weights of a trial's evaluations in host memory, and average them.

    Args:
        model: the model.
        learning: the names of the weights that learn by the trial's end; the others are the same in all.
        count: evaluations in the mean, at most.
        of: `last` or `best`; the best have the lowest WER on dev, then CER and loss.
        steps: those at which the trial is evaluated anyway. Others, as before a machine goes, do not count: a trial
            that was moved must end as one that was not.

    Attributes:
        kept: by evaluation `step`, `scores` and `weights` on the CPU; what goes with a checkpoint to resume from.
    """

    def __init__(
        self, model: torch.nn.Module, learning: Collection[str], count: int, of: str, steps: Collection[int]
    ) -> None:
        self._learning = {name: one for name, one in model.named_parameters() if name in learning}
        self._count, self._best = count, of == BEST
        self._steps = frozenset(steps if self._best else sorted(steps)[-count:])
        self.kept: list[dict[str, Any]] = []

    def take(self, step: int, scores: Mapping[str, float]) -> None:
        """Keep the model's weights, if they are to be in the mean.

        Args:
            step: updates done.
            scores: with `wer`, `cer` and `loss` of these weights on dev.
        """
        if step not in self._steps or any(one["step"] == step for one in self.kept):
            return
        new = {"step": step, "scores": order(scores)}
        chosen = sorted([*self.kept, new], key=_rank)[: self._count] if self._best else [*self.kept, new]
        if any(one is new for one in chosen):
            new["weights"] = {name: one.detach().to("cpu", copy=True) for name, one in self._learning.items()}
        self.kept = chosen

    def resume(self, kept: list[dict[str, Any]]) -> None:
        """Go on from what went with a checkpoint."""
        self.kept = [one for one in kept if one["step"] in self._steps]

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Put the mean in the model's place, for the length of the block."""
        first, *others = sorted(self.kept, key=lambda one: one["step"])  # so a resumed trial has the same last bits
        own = {}
        for name, parameter in self._learning.items():
            mean = first["weights"][name].clone()
            for count, other in enumerate(others, start=2):
                mean.lerp_(other["weights"][name], 1 / count)
            own[parameter], parameter.data = parameter.data, mean.to(parameter.device)
        try:
            yield
        finally:
            for parameter, weights in own.items():
                parameter.data = weights


def _rank(kept: Mapping[str, Any]) -> tuple[tuple[float, ...], int]:
    return kept["scores"], kept["step"]
