"""Listen with checkpoints and a language model on the cluster, as many at a time as there are slots.

In: checkpoints, a prepared dataset and a language model. Out: for each checkpoint the weights tuned on dev, and its
errors on test with them. `run` hands the listener to the sweep's end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hausa_asr.storage.address import here, is_remote, portable
from hausa_asr.storage.folders import fetch_file, put_file
from sweeps.on_ray.tasks import as_done
from sweeps.planning.slots import SlotPlan
from sweeps.verdict.with_lm import Listener

_BEAM = 50


def listener(prepared_path: Path, plan: SlotPlan) -> Listener:
    """A function that listens with checkpoints and a language model.

    Args:
        prepared_path: the prepared dataset.
        plan: what a worker takes, and how many slots there are.
    """
    gpu = bool(plan.worker_resources.get("GPU"))

    def listen(checkpoints: list[Path], lm: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        shared_lm = portable(lm)
        if is_remote(shared_lm):
            put_file(lm, shared_lm)
        prepared = portable(prepared_path)
        calls = [(prepared, portable(one), shared_lm, plan.threads, gpu) for one in checkpoints]
        return as_done(_listen, calls, plan, at_once=plan.slots)  # each holds the logits of all of test

    return listen


def _listen(prepared_path: str, checkpoint: str, lm: str, threads: int, gpu: bool) -> dict[str, Any]:
    """Tune a language model beside one checkpoint, and decode test with it."""
    import torch

    from hausa_asr.dataset.prepared import load_prepared
    from hausa_asr.language_model.tune import listen_with
    from hausa_asr.model.device import ready_device
    from hausa_asr.storage.fetched import at_hand
    from hausa_asr.training import checkpoint as checkpoints

    torch.set_num_threads(threads)
    model, processor = checkpoints.load(at_hand(checkpoint))
    if is_remote(lm):
        fetch_file(lm, here(lm))
    model.to(ready_device("cuda" if gpu else "cpu"))  # type: ignore[arg-type]
    splits = load_prepared(at_hand(prepared_path)).splits
    heard = listen_with(here(lm), model, processor, splits["dev"], splits.get("test"), _BEAM)
    return {**heard, "weights": asdict(heard["weights"])}
