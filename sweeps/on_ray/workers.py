"""A slot's workers: take trials from the desk one after another and fine-tune them, until the desk closes.

In: a desk and what all jobs of the slot share. Out: messages at the desk, checkpoints and a log in each trial's folder.
Ray Train runs `work` on every rank.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from hausa_asr.errors import TooLittleMemory, first_line
from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from hausa_asr.storage.address import here
from sweeps.on_ray.leaving import Asked
from sweeps.on_ray.messages import MOST_LETTERS, Ended, Failed, Reported, Taken
from sweeps.on_ray.trial_storage import TrialStorage

if TYPE_CHECKING:
    import torch

    from hausa_asr.dataset.prepared import Prepared


def work(config: dict[str, Any]) -> None:
    """Run on each Ray Train worker: fine-tune the desk's jobs until it closes."""
    import torch
    from ray import train

    from hausa_asr.dataset.prepared import load_prepared
    from hausa_asr.model.kept import give_memory_back
    from hausa_asr.storage.fetched import at_hand

    desk, spec = config["desk"], config["spec"]
    torch.set_num_threads(spec["threads"])
    # Ray does not hide GPUs from workers that asked for none.
    device = torch.device("cuda", torch.cuda.current_device()) if spec["gpus_per_worker"] else torch.device("cpu")
    rank, world = train.get_context().get_world_rank(), train.get_context().get_world_size()
    number, datasets, leave = -1, {}, Asked(spec["leave_key"], rank)
    while (taken := ray.get(desk.job_after.remote(number))) is not None:
        number, job = taken
        if rank == 0:
            ray.get(desk.send.remote(number, Taken()))
        try:
            if job["prepared"] not in datasets:
                datasets[job["prepared"]] = load_prepared(at_hand(job["prepared"]))
            end = _fine_tune(job, number, datasets[job["prepared"]], desk, device, rank, leave)
        except Exception as error:
            if world > 1:
                raise  # the other ranks may wait in a collective for ever: let Ray Train end the group
            ray.get(desk.send.remote(number, failed_by(error)))
            if device.type != "cpu":
                raise  # an error of the device stays with its process: the next trial gets a new one
        else:
            if rank == 0:
                ray.get(desk.send.remote(number, Ended(end)))
        give_memory_back()
    leave.close()


def failed_by(error: Exception) -> Failed:
    """What a worker that is alone reports of an error; its own place the slot adds."""
    name, why = type(error).__name__, first_line(error, MOST_LETTERS)
    return Failed(why if why == name else f"{name}: {why}", own=isinstance(error, TooLittleMemory))


def _fine_tune(
    job: dict[str, Any],
    number: int,
    prepared: Prepared,
    desk: Any,
    device: torch.device,
    rank: int,
    leave: Asked,
) -> str:
    """Fine-tune one trial on one rank; returns how it ended."""
    from hausa_asr.training.finetune import Data, finetune

    storage = TrialStorage(job["folder"])
    folder = storage.folder
    with _logged(folder, rank) as log:
        storage.bring(*job["left_at"])

        def report(progress: Progress) -> Answer:
            figures = " ".join(f"{name}={value:.5g}" for name, value in progress.metrics.items())
            log.info("step %d of %d: %s", progress.step, progress.updates, figures)
            message = Reported(progress)
            if message.is_end:
                ray.get(desk.send.remote(number, message))
                return Answer.STOP
            return ray.get(desk.report.remote(number, message))

        log.info("trial %s: %s", job["trial"], json.dumps(job["recipe"]))
        try:
            result = finetune(
                FinetuneConfig(**job["recipe"]),
                Data(prepared.splits["train"], prepared.splits["dev"], prepared.fingerprint),
                report,
                base=job["base"],
                folder=folder,
                device=device,
                cache=here(job["cache"]),
                keep_free=job["keep_free"],
                evaluate_at_s=job["rungs"],
                hurry=_is_about_to_go if job["on_a_cluster"] else None,
                leave=leave,
                put=storage.put,
            )
        finally:
            storage.close() if rank == 0 else storage.release()
        log.info("%s at step %d", result.end, result.progress.step)
        return result.end


def _is_about_to_go() -> bool:
    """Whether the cluster has said that a node of this worker group goes soon, as spot machines do."""
    from ray import train

    return train.get_preemption_info() is not None


@contextmanager
def _logged(folder: Path, rank: int) -> Iterator[logging.Logger]:
    """Write what a trial logs to `train.log` in its folder, and its traceback if it fails."""
    log = logging.getLogger("hausa_asr.trial")
    log.setLevel(logging.INFO)
    log.propagate = False
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / ("train.log" if rank == 0 else f"train-rank{rank}.log"), encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield log
    except Exception:
        log.error("the trial failed:\n%s", traceback.format_exc())
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
