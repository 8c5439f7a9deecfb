"""A model of a recorded table: the learning curve of any setting of its space, with the noise of training.

In: a table's curves and the space that they were drawn from. Out: curves of settings that nobody trained. In a replay
a search can only choose among the recorded settings; here it can go anywhere, as a real one does. Called by
`simulated_sweeps`.

Two kinds of model, so that no sampler wins because the truth is of its own kind: `trees` are extremely randomized trees
over whole curves, `process` a Gaussian process for each of their six main components, with a Matern 3/2 kernel. A curve
is what the model expects plus a part of the residual of a recorded one, which is drawn for each trial: the residuals of
settings that were left out when the model was fitted hold the model's own error too, so not all of them is noise.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import bench  # noqa: F401  it puts the checkout on the path
import numpy as np

from hausa_asr.settings.load import load
from sweeps.pruning.rule import Point
from sweeps.replay.curves import read
from sweeps.sampling.encode import Encoder

Kind = Literal["trees", "process"]
AGES = np.r_[np.arange(0.05, 0.2, 0.025), np.arange(0.2, 1.0001, 0.05)]
"""Shares of the length at which a curve is modelled."""
COMPONENTS, TREES = 6, 100
NOISE = 0.35
"""The share of a residual that counts as noise."""
_LEAST = 1e-3


class ModelledWorld:
    """A model of one table.

    Args:
        curves: the table's file.
        config: the settings whose space it was drawn from.
        kind: the model.
    """

    def __init__(self, curves: Path, config: Path, kind: Kind) -> None:
        self.config_path = config
        self._encode = Encoder(load(config, [], environment={}))
        every = [curve for seeds in read(curves) for curve in seeds]
        known = np.array([self._encode(curve.settings) for curve in every])
        rows = np.array([_as_row(curve.points, curve.length_s) for curve in every])
        self._mean, self._spread = rows.mean(0), rows.std(0) + 1e-6
        scaled = (rows - self._mean) / self._spread
        self._axes = np.linalg.svd(scaled, full_matrices=False)[2][:COMPONENTS]
        parts = scaled @ self._axes.T
        self._models, residuals = _trees(known, parts) if kind == "trees" else _process(known, parts)
        self._noise = (residuals - residuals.mean(0)) @ self._axes + scaled - parts @ self._axes

    def curve(self, settings: dict[str, Any], rng: np.random.Generator | None = None) -> np.ndarray:
        """(3, ages) eval loss, WER and CER of a trial; without `rng` what is expected."""
        place = self._encode(settings)[None]
        row = np.concatenate([np.ravel(model.predict(place)) for model in self._models]) @ self._axes
        if rng is not None:
            row = row + NOISE * self._noise[rng.integers(len(self._noise))]
        loss, wer, cer = np.exp(row * self._spread + self._mean).reshape(3, -1)
        return np.array([loss, np.minimum(wer, 1.1), np.minimum(cer, 1.1)])


def _as_row(points: tuple[Point, ...], length_s: float) -> np.ndarray:
    """The logarithms of a recorded curve's loss, WER and CER at `AGES`, one after the other."""
    at = np.array([point.seen_s for point in points]) / length_s
    figures = (
        [point.loss for point in points],
        [min(point.wer, 1.2) for point in points],
        [min(point.cer, 1.2) for point in points],
    )
    return np.log(np.maximum(_LEAST, np.concatenate([np.interp(AGES, at, one) for one in figures])))


def _trees(known: np.ndarray, parts: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """A model of all components, and what it misses of settings that were left out."""
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.model_selection import cross_val_predict

    model = ExtraTreesRegressor(TREES, random_state=0)
    missed = parts - cross_val_predict(model, known, parts, cv=min(10, len(known)))
    return [model.fit(known, parts)], missed


def _process(known: np.ndarray, parts: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """A model for each component, and what each misses of settings that were left out."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    lengths = Matern(np.ones(known.shape[1]), length_scale_bounds=(0.2, 30.0), nu=1.5)
    models, missed = [], np.empty_like(parts)
    for column in range(parts.shape[1]):
        model = GaussianProcessRegressor(ConstantKernel() * lengths + WhiteKernel(0.1, (0.01, 1.0)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a setting that does nothing has the largest length
            model.fit(known, parts[:, column])
        inverse = np.linalg.inv(model.kernel_(known))
        missed[:, column] = inverse @ parts[:, column] / np.diag(inverse)  # the leave-one-out residual
        models.append(model)
    return models, missed
