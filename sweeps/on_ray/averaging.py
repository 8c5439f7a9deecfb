"""Average the weights of checkpoints on the cluster, one group of runs to a task.

In: groups of checkpoints, and a prepared dataset. Out: of each group the members of its greedy average and its scores
on dev, with the average written as a checkpoint. `run` hands the averager to the sweep's end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hausa_asr.storage.address import here, portable
from sweeps.on_ray.scoring import scored
from sweeps.on_ray.tasks import as_done
from sweeps.planning.slots import SlotPlan
from sweeps.verdict.soup import Averaged, Averager, Batch


def averager(prepared_path: Path, plan: SlotPlan) -> Averager:
    """A function that averages groups of checkpoints, as many at a time as there are workers.

    Args:
        prepared_path: the prepared dataset.
        plan: what a worker takes.
    """
    gpu = bool(plan.worker_resources.get("GPU"))

    def average(batches: list[Batch]) -> list[Averaged]:
        calls = [
            (
                portable(prepared_path), [portable(one) for one in batch.checkpoints], portable(batch.out),
                plan.threads, gpu,
            )
            for batch in batches
        ]  # fmt: skip
        done = dict(as_done(_average, calls, plan))
        return [Averaged(*done[number]) for number in range(len(batches))]

    return average


def _average(
    prepared_path: str, checkpoints: list[str], out: str, threads: int, gpu: bool
) -> tuple[list[int], dict[str, Any]]:
    """Average some checkpoints, and write the average if it is better than the best of them."""
    import torch

    from hausa_asr.dataset.prepared import load_prepared
    from hausa_asr.storage.fetched import at_hand, share
    from hausa_asr.training import soup

    torch.set_num_threads(threads)
    dev = load_prepared(at_hand(prepared_path)).splits["dev"]
    folders = [str(at_hand(one)) for one in checkpoints]
    made = soup.greedy(folders, dev, device=torch.device("cuda" if gpu else "cpu"))
    if len(made.members) > 1:
        here(out).parent.mkdir(parents=True, exist_ok=True)
        soup.write(made, here(out))
        share(here(out))
    return [folders.index(str(member)) for member in made.members], scored(made.soup)
