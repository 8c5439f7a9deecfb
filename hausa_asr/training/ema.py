"""An exponential moving average of the weights (EMA): what is evaluated and exported in place of the last update's.

In: the weights after each update. Out: their average, put in their place for an evaluation. While the learning rate is
large, the weights of two updates differ by noise, and their average is better than either (Polyak and Juditsky, 1992).
Called by the fine-tune.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

Weights = dict[str, torch.Tensor]


class Ema:
    """Average the weights that learn over about a share of a trial's updates.

    Args:
        model: the model; only weights that have learned are averaged.
        fraction: of the updates: each update counts `1 / (fraction * updates)`.
        updates: of the whole trial.
    """

    def __init__(self, model: torch.nn.Module, fraction: float, updates: int) -> None:
        self._rate = min(1.0, 1.0 / max(1.0, fraction * updates))
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._means: dict[torch.nn.Parameter, torch.Tensor] = {}

    @torch.no_grad()
    def update(self, step: int, learning: list[torch.nn.Parameter]) -> None:
        """Take in the weights after an update.

        Args:
            step: the update, from 0. In the first ones the average is a plain mean, so it does not hang on the start.
            learning: the weights that have learned in it.
        """
        for parameter in learning:
            if parameter not in self._means:
                self._means[parameter] = parameter.detach().clone()
        means = [self._means[parameter] for parameter in learning]
        torch._foreach_lerp_(means, [one.detach() for one in learning], max(self._rate, 1.0 / (step + 1)))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages in the place of the weights, for the length of the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for parameter, mean in self._means.items():
            self._means[parameter], parameter.data = parameter.data, mean

    def others(self) -> Weights:
        """The other one of weights and averages, by name: within `applied` the weights, outside the averages."""
        return {self._names[id(parameter)]: other for parameter, other in self._means.items()}

    @torch.no_grad()
    def resume(self, model: torch.nn.Module, weights: Weights) -> None:
        """Go on from a checkpoint, whose model is the average.

        Args:
            model: the average, as loaded; it gets the weights.
            weights: those of `others` when the checkpoint was written.
        """
        parameters = dict(model.named_parameters())
        for name, weight in weights.items():
            self._means[parameters[name]] = parameters[name].detach().clone()
            parameters[name].copy_(weight)
