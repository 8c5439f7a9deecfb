"""Made-up learning curves with known answers, and the lines of a file that holds them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from hausa_asr.settings.sweep import PruningSettings
from sweeps.pruning.rule import Point
from sweeps.replay.curves import Curve
from sweeps.replay.policy import Options

LENGTH_S = 1000.0
RECIPE = {"length_s": LENGTH_S, "warmup_fraction": 0.1, "freeze_transformer_fraction": 0.0, "unfreeze": "all"}


def curve(name: str, wers: list[float], losses: list[float] | None = None, source: str = "random") -> Curve:
    """Evenly spaced points, 10 s of training each and 1 s per evaluation."""
    losses = losses or wers
    seen = [LENGTH_S * (n + 1) / len(wers) for n in range(len(wers))]
    points = tuple(Point(s, loss, wer, wer / 3) for s, loss, wer in zip(seen, losses, wers, strict=True))
    train_s = tuple(10.0 * (n + 1) for n in range(len(wers)))
    return Curve(name, source, LENGTH_S, 100.0, 0.0, 0.0, 0.01, points, train_s, 1.0)


def crossing() -> list[Curve]:
    """Eight settings, better and better; on the plateau the good ones insert letters, so their WER is the higher."""
    return [
        curve(str(n), [1.0 + 0.005 * n, 0.9 - 0.05 * n, 0.8 - 0.08 * n, 0.7 - 0.08 * n], [4 - 0.2 * n, 2, 1.5, 1.2])
        for n in range(8)
    ]


def made_up(count: int, seed: int) -> list[list[Curve]]:
    """Random settings: a plateau, then a fall to a WER of their own; the first three on two seeds."""
    rng = np.random.default_rng(seed)
    settings = []
    for number in range(count):
        seeds = []
        for _ in range(2 if number < 3 else 1):
            end, leaves = rng.uniform(0.1, 0.5), rng.integers(2, 6)
            wers = [min(1.0, end + math.exp(leaves - n)) + rng.normal(0, 0.01) for n in range(12)]
            losses = [wer * 2 + rng.normal(0, 0.05) + end for wer in wers]
            seeds.append(curve(str(number), wers, losses, "baseline" if number == 0 else "random"))
        settings.append(seeds)
    return settings


def options(**pruning: object) -> Options:
    return Options(LENGTH_S, 500.0, PruningSettings.model_validate({"reduction": 2, "first_rung": 0.25, **pruning}))


def line(one: Curve, number: int, seed: int = 0, **more: Any) -> str:
    """One line of such a file."""
    columns = {name: [getattr(p, name) for p in one.points] for name in ("seen_s", "loss", "wer", "cer")}
    points = {**columns, "train_s": one.train_s, "eval_s": [1.0 * (n + 1) for n in range(len(one.points))]}
    settings = {"lr_peak": 1e-4 * (1 + number), "schedule": ("linear", "cosine")[number % 2]}
    values = {"number": number, "seed": seed, "source": one.source, "settings": settings, "recipe": RECIPE}
    return json.dumps({**values, "wer_se": 0.01, "points": points, **more}) + "\n"
