"""A Gaussian process over settings: what a sweep's trials say of settings, tried or not.

In: settings as numbers from 0 to 1, observed standings and how far to trust each. Out: means and variances. The kernel
is Matern 5/2 with a length per dimension; lengths, height and noise are fitted to the sweep, held by priors that a few
trials cannot overrule (the lengths grow with the square root of the dimensions: Hvarfner et al., 2024). Called by
`predictor`. It needs NumPy and SciPy only.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

_STEPS = 15
"""Of the fit; later ones change no decision."""
_FITTED = 60
"""Lengths, height and noise are fitted to a subset of this size, since the cost grows with its cube."""
_JITTER = 1e-6


class Surrogate:
    """A fitted Gaussian process with mean 0.

    Args:
        places: (N, D) settings.
        values: (N,) observed standings.
        variances: (N,) of each observation, beside the noise that is fitted.
        parameters: (D + 2,) logarithms of the lengths, the height and the noise, from an earlier fit; None to fit them.
    """

    def __init__(
        self, places: np.ndarray, values: np.ndarray, variances: np.ndarray, parameters: np.ndarray | None = None
    ) -> None:
        self.places, self._values, self._variances = places, values, variances
        if parameters is None:
            every = math.ceil(len(values) / _FITTED)
            parameters = Posterior(places[::every], values[::every], variances[::every]).most_probable()
        self.parameters = parameters
        kernel, _ = _kernel(_squares(places, places), parameters)
        self._factor = _factor(kernel, variances, parameters)
        self._weights = cho_solve((self._factor, True), values)

    @property
    def noise(self) -> float:
        """How much trials with the same settings differ: the variance of what settings do not explain."""
        return math.exp(self.parameters[-1])

    def __call__(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M,) means and (M,) variances at (M, D) settings, `noise` left out."""
        kernel, _ = _kernel(_squares(places, self.places), self.parameters)
        explained = solve_triangular(self._factor, kernel.T, lower=True)
        height = math.exp(self.parameters[-2])
        return kernel @ self._weights, np.maximum(_JITTER, height - (explained**2).sum(0))

    def with_more(self, places: np.ndarray, values: np.ndarray, variances: np.ndarray) -> Surrogate:
        """The same process with further observations, its parameters as they are."""
        return Surrogate(
            np.r_[self.places, places],
            np.r_[self._values, values],
            np.r_[self._variances, variances],
            self.parameters,
        )


def _squares(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, M, D) squared differences of (N, D) and (M, D) settings."""
    return (places[:, None] - others[None]) ** 2


def _kernel(squares: np.ndarray, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel (N, M) of squared differences (N, M, D), and a factor that its gradients by the lengths share."""
    distance = np.sqrt(5.0 * (squares @ np.exp(-2.0 * parameters[:-2])) + 1e-12)
    height, falling = math.exp(parameters[-2]), np.exp(-distance)
    return height * (1 + distance + distance**2 / 3) * falling, height * (1 + distance) * falling


def _factor(kernel: np.ndarray, variances: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    return cholesky(kernel + np.diag(variances + math.exp(parameters[-1]) + _JITTER), lower=True)


class Posterior:
    """How probable the parameters of a process are, given (N, D) settings, (N,) standings and their (N,) variances."""

    def __init__(self, places: np.ndarray, values: np.ndarray, variances: np.ndarray) -> None:
        self._squares, self._values, self._variances = _squares(places, places), values, variances
        self._d = d = places.shape[1]
        self._prior = np.r_[np.full(d, math.log(0.5 * math.sqrt(d))), math.log(0.7), math.log(0.1)]
        self._width = np.r_[np.full(d, 0.9), 0.5, 0.7]

    def most_probable(self) -> np.ndarray:
        """The (D + 2,) parameters that fit best."""
        limits = [(-3.0, 4.0)] * self._d + [(-3.0, 2.0), (-6.0, 1.0)]
        return minimize(self, self._prior, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": _STEPS}).x

    def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """The negative logarithm of the posterior, and its (D + 2,) gradient."""
        kernel, slope = _kernel(self._squares, parameters)
        factor = _factor(kernel, self._variances, parameters)
        weights = cho_solve((factor, True), self._values)
        inverse = cho_solve((factor, True), np.eye(len(self._values)))
        pull = np.outer(weights, weights) - inverse
        off = (parameters - self._prior) / self._width
        loss = 0.5 * float(self._values @ weights) + float(np.log(np.diag(factor)).sum()) + 0.5 * float(off @ off)
        gradient = off / self._width
        lengths = np.exp(-2.0 * parameters[:-2])
        gradient[:-2] -= 0.5 * (5.0 / 3.0) * lengths * np.tensordot(pull * slope, self._squares, 2)
        gradient[-2] -= 0.5 * float((pull * kernel).sum())
        gradient[-1] -= 0.5 * math.exp(parameters[-1]) * float(np.trace(pull))
        return loss, gradient
