"""Measure a trial's speed on one worker of the cluster before a sweep starts, where only a guess is known.

In: the settings, the slot plan, the prepared dataset and a prediction made with a guess. Out: the prediction with the
measured speed. So a budget that is too small is refused before a night is spent on it, and what a long sweep takes is
known at its start. Called by `run`.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import ray

from hausa_asr.dataset.prepared import Prepared
from hausa_asr.errors import NodeFault, UserError, first_line
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.storage.address import here, portable
from sweeps.planning.budget import is_limited
from sweeps.planning.estimate import Prediction, predict
from sweeps.planning.slots import SlotPlan
from sweeps.planning.speed import base_of, measured

_WORTH_S, _WRONG_BY = 1800.0, 10.0
"""A sweep that may take this long is worth half a minute of measuring; a guess may be wrong by this factor."""
_SECONDS, _PATIENCE_S = 30.0, 600.0
"""How long updates are measured; and how long is waited in all, with the base checkpoint's loading."""


def is_worthwhile(config: SweepConfig, prediction: Prediction) -> bool:
    """Whether a speed is worth measuring: it is not known yet, and the sweep is long, or may be and has a budget.

    In a short one without a budget the first reports, minutes later, say as much.
    """
    if prediction.speed is not None and not prediction.speed.guessed:
        return False
    wrong_by = _WRONG_BY if is_limited(config) else 1.0
    return prediction.high is None or wrong_by * prediction.high.wall_s >= _WORTH_S


def calibrated(config: SweepConfig, plan: SlotPlan, prepared: Prepared, prediction: Prediction) -> Prediction:
    """Measure the speed and predict again; where that fails, the prediction as it is, with a warning.

    Raises:
        UserError: the base checkpoint cannot be used.
    """
    resources = plan.worker_resources
    gpu, workers = bool(resources.get("GPU")), next(iter(plan.workers), config.resources.most_workers)
    recipe = config.recipe()
    options: dict[str, Any] = {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0)}
    # The slowest that a trial may be: the largest base checkpoint, all of it learning. Each worker has part of a batch.
    base = max(config.bases, key=lambda name: known.weights if (known := base_of(name)) else 0)
    share = replace(recipe, base=base, freeze_transformer_fraction=0.0, batch_s=recipe.batch_s / workers)
    # An actor, since Ray ends the driver where a task is cancelled just as it raises.
    options["label_selector"] = dict(plan.labels) or None
    process: Any = _Measuring.options(**options).remote()  # type: ignore[attr-defined]
    try:
        pending = process.measure.remote(portable(prepared.path), asdict(share), plan.threads, gpu)
        training, scoring = ray.get(pending, timeout=_PATIENCE_S)
    except Exception as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, UserError) and not isinstance(cause, NodeFault):  # another node may be sound
            raise cause from None
        warning = f"a trial's speed could not be measured, so it is guessed: {first_line(cause, 200)}"
        return replace(prediction, warnings=(*prediction.warnings, warning))
    finally:
        ray.kill(process)  # gives back its place and the GPU's memory
    speed = measured(config, training, scoring, prepared.seconds, workers)
    return predict(config, plan, here(config.storage), prepared.seconds, speed, prepared.fingerprint)


@ray.remote
class _Measuring:
    """A process of its own, with what a worker takes."""

    def measure(self, prepared_path: str, recipe: dict[str, Any], threads: int, gpu: bool) -> tuple[float, float]:
        """Measure training and scoring, in seconds of audio a second."""
        import torch

        from hausa_asr.dataset.prepared import load_prepared
        from hausa_asr.recipe import FinetuneConfig
        from hausa_asr.storage.fetched import at_hand
        from hausa_asr.training.run import Data
        from hausa_asr.training.speed import measure

        torch.set_num_threads(threads)
        splits = load_prepared(at_hand(prepared_path)).splits
        config = FinetuneConfig(**recipe)
        device = torch.device("cuda" if gpu else "cpu")
        data = Data(splits["train"], splits["dev"])
        rates = measure(config, data, base=config.base, device=device, seconds=_SECONDS)
        return rates.training, rates.scoring
