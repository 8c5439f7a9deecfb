"""A slot: one Ray Train worker group that lives as long as the sweep and is handed trial after trial.

Ray Tune sees an ordinary reusable actor, `Slot`. Behind it `TorchTrainer.fit()` runs in a thread, and its workers take
jobs from a `Desk`, a small actor without a CPU. One Train run per trial would leave the slot idle for about 20 s
between two trials; here the next trial starts as soon as the last one's workers hear that it is over.

The workers say how it goes and wait for the answer; the answer comes with Tune's next call: `step` means go on,
`reset_config` and `cleanup` mean stop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray import tune

from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from sweeps.on_ray.scheduler import NEWS

_POLL_S = 1.0
"""How often a waiting slot looks whether its workers are still alive, and whether it has still to wait."""


class SlotBroken(RuntimeError):
    """The worker group has ended or does not start; Tune gives the trial a new slot."""


@ray.remote(num_cpus=0)
class Desk:
    """Where a slot and its workers meet. Both may be started anew and crash; the desk only passes on what is said.

    Jobs are numbered, and every rank asks for the one after its last, so no rank waits in a collective for work.
    """

    def __init__(self) -> None:
        self._jobs: list[dict[str, Any]] = []
        self._closed = False
        self._news: asyncio.Queue[tuple[int, dict[str, Any]]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Queue[str]] = {}
        self._changed = asyncio.Event()

    # What the slot calls.

    def post(self, job: dict[str, Any]) -> int:
        """Hand out a job; returns its number."""
        self._jobs.append(job)
        self._answers[len(self._jobs) - 1] = asyncio.Queue()
        self._changed.set()
        return len(self._jobs) - 1

    async def news(self, number: int, timeout_s: float) -> dict[str, Any] | None:
        """The next thing that the workers say of a job; None after the timeout. Words on earlier jobs are dropped."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            try:
                of, what = await asyncio.wait_for(self._news.get(), left)
            except TimeoutError:
                return None
            if of == number:
                return what
        return None

    def answer(self, number: int, answer: str) -> None:
        """The answer to the job's last report."""
        self._answers[number].put_nowait(answer)

    def close(self) -> None:
        """No more jobs: whatever is reported ends there, and the workers go home."""
        self._closed = True
        for answers in self._answers.values():
            answers.put_nowait(Answer.STOP.value)
        self._changed.set()

    # What the workers call.

    async def job_after(self, number: int) -> tuple[int, dict[str, Any]] | None:
        """The job after `number`, once there is one; None when the slot is closed."""
        while len(self._jobs) <= number + 1:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        return number + 1, self._jobs[number + 1]

    async def tell(self, number: int, what: dict[str, Any]) -> None:
        """Something the slot should hear, with no answer wanted."""
        self._news.put_nowait((number, what))

    async def report(self, number: int, what: dict[str, Any]) -> str:
        """A report; returns its answer."""
        self._news.put_nowait((number, what))
        return await self._answers[number].get()


class Slot(tune.Trainable):
    """Ray Tune's side of a slot. Its configuration is `job` (a trial, or None to wait) and `slot` (what all share)."""

    def setup(self, config: dict[str, Any]) -> None:
        self._spec = config["slot"]
        self._name = f"slot-{time.time_ns()}"
        self._open()
        self._take(config["job"])

    def _open(self) -> None:
        """Set up a desk and start a worker group at it."""
        self._desk: Any = Desk.remote()  # type: ignore[attr-defined]
        self._failure: BaseException | None = None
        self._fit = threading.Thread(target=self._run_train, args=(self._desk,), daemon=True)
        self._fit.start()

    def _run_train(self, desk: Any) -> None:
        try:
            from ray.train import RunConfig, ScalingConfig
            from ray.train.torch import TorchTrainer

            spec = self._spec
            TorchTrainer(
                work,
                train_loop_config={"desk": desk, "spec": spec},
                scaling_config=ScalingConfig(
                    num_workers=spec["workers"],
                    use_gpu=spec["gpus_per_worker"] > 0,
                    resources_per_worker=spec["resources_per_worker"],
                ),
                run_config=RunConfig(name=f"train-{time.time_ns()}", storage_path=spec["train_storage"]),
            ).fit()
        except BaseException as error:  # told to Tune by the next step
            self._failure = error

    def _take(self, job: dict[str, Any] | None) -> None:
        self._started = time.monotonic()
        self._heard = False
        self._answer_due = False
        self._waits = job is None
        if job is not None:
            self._job_number = ray.get(self._desk.post.remote(job))

    def step(self) -> dict[str, Any]:
        """Let the trial go on until its next report; without one, wait a little."""
        if self._waits:
            time.sleep(_POLL_S / 5)
            return {NEWS: ""}
        self._answer(Answer.CONTINUE)
        while True:
            news = ray.get(self._desk.news.remote(self._job_number, _POLL_S))
            if news is not None:
                break
            if not self._fit.is_alive():
                raise SlotBroken(f"the worker group has ended: {self._failure or 'no reason given'}") from self._failure
            waited = time.monotonic() - self._started
            if not self._heard and waited > self._spec["startup_timeout_s"]:
                raise SlotBroken(f"no worker has taken the trial within {waited:.0f} s")
        self._heard = True
        if news["kind"] == "taken":
            return self.step()
        if news["kind"] == "ended":  # not waited for, so its last report has been lost
            news = {"kind": "failed", "error": f"it ended as {news['end']} without a last report"}
        self._answer_due = news["kind"] == "report" and not _is_end(news["report"])
        return {NEWS: json.dumps({**news, "slot": self._name})}

    def _answer(self, answer: Answer) -> None:
        if self._answer_due:
            self._answer_due = False
            ray.get(self._desk.answer.remote(self._job_number, answer.value))

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing to save: the trial's checkpoint is in the sweep's storage before its report is told."""
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load: a trial finds its own checkpoint."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """End the trial at hand and take the next one, on the same warm workers, or on new ones if those are gone.

        Never False and no exception: Tune would give up the next trial rather than try it on another slot.
        """
        try:
            # Said even when no report waits: one may be on its way, and its worker would wait for ever.
            if not self._waits:
                ray.get(self._desk.answer.remote(self._job_number, Answer.STOP.value))
        except ray.exceptions.RayActorError:
            self._desk = None
        if self._desk is None or not self._fit.is_alive():
            self._open()
        self._take(new_config["job"])
        return True

    def cleanup(self) -> None:
        """The sweep is over, or the trial crashed: let the workers go home."""
        ray.get(self._desk.close.remote())
        self._fit.join(timeout=self._spec["goodbye_s"])


def _is_end(report: dict[str, Any]) -> bool:
    """Whether a report ends its trial whatever is answered."""
    return bool(report["last"] or report["diverged"])


def work(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs: take jobs from the desk until it closes."""
    import torch
    from ray import train

    from hausa_asr.dataset.prepare import load_prepared

    desk, spec = config["desk"], config["spec"]
    torch.set_num_threads(spec["threads"])
    # Ray does not hide GPUs from workers that asked for none.
    device = torch.device("cuda", torch.cuda.current_device()) if spec["gpus_per_worker"] else torch.device("cpu")
    rank = train.get_context().get_world_rank()
    world = train.get_context().get_world_size()
    number, prepared = -1, {}
    while (taken := ray.get(desk.job_after.remote(number))) is not None:
        number, job = taken
        if job["prepared"] not in prepared:
            prepared[job["prepared"]] = load_prepared(job["prepared"])
        if rank == 0:
            ray.get(desk.tell.remote(number, {"kind": "taken"}))
        try:
            end = _run(job, number, prepared[job["prepared"]], desk, device, rank)
        except Exception as error:
            if world > 1:
                raise  # the other ranks may wait in a collective for ever: let Ray Train end the group
            what = f"{type(error).__name__}: {error}".splitlines()[0][:500]
            ray.get(desk.tell.remote(number, {"kind": "failed", "error": what}))
            if device.type != "cpu":
                raise  # an error of the device stays with its process: the next trial gets a new one
        else:
            if rank == 0:
                ray.get(desk.tell.remote(number, {"kind": "ended", "end": end}))


def _run(job: dict[str, Any], number: int, prepared: Any, desk: Any, device: Any, rank: int) -> str:
    """One trial on one rank; how it ended. What it prints and logs goes to `train.log` in the trial's folder."""
    from hausa_asr.training.finetune import Data, finetune

    folder = Path(job["folder"])
    log = logging.getLogger("hausa_asr.one_recipe")
    log.setLevel(logging.INFO)
    log.propagate = False
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / ("train.log" if rank == 0 else f"train-rank{rank}.log"), encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)

    def report(progress: Progress) -> Answer:
        figures = " ".join(f"{name}={value:.5g}" for name, value in progress.metrics.items())
        log.info("step %d of %d: %s", progress.step, progress.updates, figures)
        told: dict[str, Any] = {"kind": "report", "report": asdict(progress)}
        if _is_end(told["report"]):
            ray.get(desk.tell.remote(number, told))
            return Answer.STOP
        return Answer(ray.get(desk.report.remote(number, told)))

    try:
        log.info("trial %s: %s", job["trial"], json.dumps(job["recipe"]))
        result = finetune(
            FinetuneConfig(**job["recipe"]),
            Data(prepared.splits["train"], prepared.splits["dev"], prepared.fingerprint),
            report,
            base=job["base"],
            folder=folder,
            device=device,
            cache=Path(job["cache"]),
            evaluate_at_s=job["rungs"],
        )
        log.info("%s at step %d", result.end, result.progress.step)
        return result.end
    except Exception:
        log.error("the trial failed:\n%s", traceback.format_exc())
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
