"""Listen with checkpoints and a language model on the cluster, as many at a time as there are slots.

In: checkpoints, a prepared dataset and a language model. Out: for each checkpoint the weights tuned on dev, and its
errors on test with them. `run` hands the listener to the sweep's end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray

from hausa_asr.storage.address import here, is_remote, portable
from hausa_asr.storage.folders import fetch_file, put_file
from sweeps.planning.slots import SlotPlan
from sweeps.verdict.with_lm import Listener

_BEAM = 50


def listener(prepared_path: Path, plan: SlotPlan) -> Listener:
    """A function that listens with checkpoints and a language model.

    Args:
        prepared_path: the prepared dataset.
        plan: what a worker takes, and how many slots there are.
    """
    resources = plan.worker_resources
    gpu = bool(resources.get("GPU"))
    task: Any = _listen.options(num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0))

    def listen(checkpoints: list[Path], lm: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        waiting = list(enumerate(checkpoints))
        shared_lm = portable(lm)
        if is_remote(shared_lm):
            put_file(lm, shared_lm)
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and len(running) < plan.slots:  # each holds the logits of all of test
                number, one = waiting.pop(0)
                running[task.remote(portable(prepared_path), portable(one), shared_lm, plan.threads, gpu)] = number
            (done, *_), _ = ray.wait(list(running))
            yield running.pop(done), ray.get(done)

    return listen


@ray.remote
def _listen(prepared_path: str, checkpoint: str, lm: str, threads: int, gpu: bool) -> dict[str, Any]:
    """Tune a language model beside one checkpoint, and decode test with it."""
    import torch

    from hausa_asr.dataset.prepared import load_prepared
    from hausa_asr.language_model.tune import listen_with
    from hausa_asr.storage.fetched import at_hand
    from hausa_asr.training import checkpoint as checkpoints

    torch.set_num_threads(threads)
    model, processor = checkpoints.load(at_hand(checkpoint))
    if is_remote(lm):
        fetch_file(lm, here(lm))
    model.to(torch.device("cuda" if gpu else "cpu"))  # type: ignore[arg-type]
    splits = load_prepared(at_hand(prepared_path)).splits
    heard = listen_with(here(lm), model, processor, splits["dev"], splits.get("test"), _BEAM)
    return {**heard, "weights": asdict(heard["weights"])}
