"""A slot: one Ray Train worker group that lives as long as the sweep and trains one trial after another.

Ray Tune sees an ordinary reusable actor, `Slot`. Behind it a Ray Train run goes on in a thread, and its workers
(`workers`) take jobs from a `Desk`, a small actor without a CPU. One Train run per trial would leave the slot idle
for about 20 s between two trials; here the next trial starts as soon as the workers know that the last one is over.

Workers report and wait for the answer. The answer comes with Tune's next call: `step` means go on, `reset_config` and
`cleanup` mean stop.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from enum import Enum
from typing import Any

import ray
from ray import tune

from hausa_asr.recipe import LEFT, Answer
from hausa_asr.storage.address import here
from sweeps.on_ray.broken import NoRoom, SlotBroken, of_group, place_of
from sweeps.on_ray.calls import wait_for_call
from sweeps.on_ray.desk import Desk
from sweeps.on_ray.experience import OVERDUE
from sweeps.on_ray.messages import MESSAGE, WORKERS, Ended, Failed, Message, Place, Reported, Taken, to_text
from sweeps.on_ray.trainer import environment_of, trainer_of, who_places
from sweeps.planning.groups import Group, Offer
from sweeps.record.checkpoints import WRITING_S

_POLL_S = 1.0
"""How often a slot that waits for a message checks that its workers are still alive."""
NODE_LABEL = "ray.io/node-id"
"""Ray's own label of every node."""
_THERE_S = 120.0
"""How long a trial waits for workers on the node where there was room for them, which somebody else may have taken."""
_ELSEWHERE_S = 60.0
"""How long a trial that avoids a node waits for workers elsewhere, before it is given back."""


class Phase(Enum):
    """Where a slot stands with its job."""

    IDLE = "no job"
    STARTING = "no worker has taken the job yet"
    TRAINING = "the workers train"
    REPORTED = "a report waits for its answer"
    OVER = "the job's last message was passed on"


class Slot(tune.Trainable):
    """Ray Tune's side of a slot. Its configuration is `job` (a trial, or None to wait) and `slot` (what all share)."""

    def setup(self, config: dict[str, Any]) -> None:
        self._spec = config["slot"]
        self._name = f"slot-{time.time_ns()}"
        self._group_ends = False
        self._ask()
        self._open()
        self._take(config["job"])

    def _ask(self) -> None:
        """Ask for the group that the driver offers."""
        offer = Offer(**self._spec["offer"])
        self._group = Group(offer.workers, offer.node)

    def _open(self) -> None:
        """Set up a desk and start a worker group at it."""
        self._desk: Any = Desk.remote()  # type: ignore[attr-defined]
        self._failure: BaseException | None = None
        self._has_workers = False
        self._places: dict[int, Place] = {}
        self._fit = threading.Thread(target=self._run_train, args=(self._desk, self._group), daemon=True)
        self._fit.start()

    def _run_train(self, desk: Any, group: Group) -> None:
        try:
            from ray.train import RunConfig, ScalingConfig

            from sweeps.on_ray.workers import work

            spec = self._spec
            workers, node = group
            labels = dict(spec["labels"])
            if node:
                labels[NODE_LABEL] = node
            elif spec["avoid"]:
                labels[NODE_LABEL] = f"!in({','.join(spec['avoid'])})"
            trainer_of(workers)(
                work,
                train_loop_config={"desk": desk, "spec": spec},
                scaling_config=ScalingConfig(  # type: ignore[call-arg]
                    num_workers=workers,
                    placement_strategy="PACK",  # of no node in particular on as few as there is room on
                    use_gpu=spec["gpus_per_worker"] > 0,
                    resources_per_worker=spec["resources_per_worker"],
                    label_selector=labels or None,
                ),
                run_config=RunConfig(  # type: ignore[call-arg]
                    name=f"train-{time.time_ns()}",
                    storage_path=str(here(spec["train_storage"])),
                    callbacks=[who_places(desk)],
                    worker_runtime_env=environment_of(spec["gpus_per_worker"]),
                ),
            ).fit()
        except BaseException as error:  # raised by the next step, which Tune hears of
            self._failure = error

    def _take(self, job: dict[str, Any] | None) -> None:
        self._posted_s = time.monotonic()
        self._phase, self._is_new = Phase.IDLE if job is None else Phase.STARTING, True
        if job is not None:
            self._is_first, self._first_report_s = True, job["first_report_s"]
            self._longest_wait_s, self._warm_nodes = job["longest_wait_s"], job["warm_nodes"]
            self._job_number = ray.get(self._desk.post.remote(job))

    def step(self) -> dict[str, Any]:
        """Let the trial go on until its next report, and pass that on; without a trial, wait until it is called."""
        if self._phase is Phase.IDLE:
            if not self._is_new:  # at first it says that it waits, and the driver may have work for it by now
                wait_for_call(self._spec["calls_key"], self.trial_id, self._spec["idle_s"])
            self._is_new = False
            return {MESSAGE: "", WORKERS: self._group.workers}
        if self._phase is Phase.REPORTED:
            self._answer(Answer.CONTINUE)
            self._phase = Phase.TRAINING
        since_s = time.monotonic()
        message = self._next_message(since_s)
        while isinstance(message, Taken):
            self._phase, since_s, self._has_workers = Phase.TRAINING, time.monotonic(), True
            self._places = ray.get(self._desk.places.remote())
            message = self._next_message(since_s)
        wait_s, is_first, self._is_first = time.monotonic() - since_s, self._is_first, False
        if not is_first:
            self._longest_wait_s = max(self._longest_wait_s, wait_s)
        if isinstance(message, Ended) and message.end == LEFT:  # at an interrupt; it can be resumed
            self._phase = Phase.IDLE
            return {MESSAGE: "", WORKERS: self._group.workers}
        if isinstance(message, Ended):  # its last report has been lost
            message = Failed(f"it ended as {message.end} without a last report")
        goes_on = isinstance(message, Reported) and not message.is_end
        self._phase = Phase.REPORTED if goes_on else Phase.OVER
        # On a GPU the workers end with a fault, though that takes Ray Train some seconds to see.
        self._group_ends = isinstance(message, Failed) and self._spec["gpus_per_worker"] > 0
        if isinstance(message, Reported):
            name, nodes, workers = self._name, self._nodes, self._group.workers
            message = Reported(message.progress, name, nodes, workers, wait_s, is_first)
        elif isinstance(message, Failed):
            node, host = place_of(self._places.values())
            message = replace(message, node=node, host=host)
        return {MESSAGE: to_text(message), WORKERS: self._group.workers}

    def _next_message(self, since_s: float) -> Message:
        """Wait for the workers' next message.

        Args:
            since_s: when the wait for a report began, by the monotonic clock.

        Raises:
            SlotBroken: they have ended, or have not reported for far too long.
            NoRoom: none has come.
        """
        while True:
            message = ray.get(self._desk.message.remote(self._job_number, _POLL_S))
            if message is not None:
                return message
            if not self._fit.is_alive():
                self._places = ray.get(self._desk.places.remote())
                raise of_group(self._failure, self._places, self._phase is Phase.TRAINING)
            waited_s = time.monotonic() - self._posted_s
            if self._phase is Phase.STARTING and waited_s > self._patience_for_room_s():
                raise NoRoom(f"no worker has taken the trial within {waited_s:.0f} s")
            # A call that hangs, in NCCL or a network file system, would hold the slot for ever.
            if self._phase is Phase.TRAINING and time.monotonic() - since_s > self._patience_s():
                why = f"its workers have not reported for {time.monotonic() - since_s:.0f} s"
                raise SlotBroken(why, *place_of(self._places.values()))

    @property
    def _nodes(self) -> tuple[str, ...]:
        """The ids of the nodes that its workers are on."""
        return tuple(sorted({node for node, _ in self._places.values()}))

    def _patience_for_room_s(self) -> float:
        """How long to wait for workers: less where there may be room elsewhere.

        Those that are there may still be writing the trial before.
        """
        given_s = float(self._spec["startup_timeout_s"])
        if self._has_workers:
            return max(given_s, WRITING_S)
        if self._spec["avoid"]:
            return min(given_s, _ELSEWHERE_S)
        return min(given_s, _THERE_S) if self._group.node else given_s

    def _patience_s(self) -> float:
        """How long to wait for a report."""
        if self._is_first or not self._longest_wait_s:
            is_warm = {*self._nodes} <= {*self._warm_nodes}
            return self._first_report_s if is_warm else float(self._spec["first_report_timeout_s"])
        return max(self._spec["report_timeout_s"], OVERDUE * self._longest_wait_s)

    def _answer(self, answer: Answer) -> None:
        ray.get(self._desk.answer.remote(self._job_number, answer))

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing to save: the trial's checkpoint is in the sweep's storage before its report is sent."""
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load: a trial finds its own checkpoint."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """End the trial at hand and take the next one, on the same warm workers, or on new ones if those are gone.

        Of a range of workers, also on new ones if there is room for more of them.

        Raises:
            NoRoom: its workers are on a node that the next one avoids. That one is given to another slot.
        """
        self._spec = new_config["slot"]
        try:
            # Even when no report waits: one may be on its way, and its worker would wait for ever.
            if self._phase is not Phase.IDLE:
                self._answer(Answer.STOP)
            if not {*self._spec["avoid"]}.isdisjoint(self._nodes):
                raise NoRoom("its slot's node is avoided")
            larger = None if new_config["job"] is None else self._larger()
            if larger and not self._group_ends:
                ray.get(self._desk.close.remote())
            if larger or self._group_ends:  # without a larger one, as many as before find room: their own
                self._group = larger or self._group
                self._fit.join(timeout=WRITING_S)
                self._desk, self._group_ends = None, False
            elif not self._fit.is_alive():
                self._desk = None
                self._ask()
        except ray.exceptions.RayActorError:
            self._desk = None
            self._ask()
        if self._desk is None:
            self._open()
        self._take(new_config["job"])
        return True

    def _larger(self) -> Group | None:
        """A larger group that the driver offers; None if this one is the largest, or has not come yet."""
        if not self._has_workers:
            return None
        node, _ = place_of(self._places.values())
        held = Group(self._group.workers, node or self._group.node)
        return Offer(**self._spec["offer"]).larger_than(held, self._spec["most_workers"])

    def cleanup(self) -> None:
        """The sweep is over, or the trial crashed: let the workers end."""
        ray.get(self._desk.close.remote())
        if self._phase is Phase.IDLE and not self._has_workers:
            return  # none has come, so none has anything to write
        # Before they take a trial they may still be writing the one before.
        busy = self._phase is Phase.TRAINING or (self._phase is Phase.STARTING and not self._has_workers)
        self._fit.join(timeout=self._spec["goodbye_s"] if busy else WRITING_S)
