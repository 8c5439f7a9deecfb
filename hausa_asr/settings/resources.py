"""The settings of the hardware: what the workers of one trial take, and how many they are.

Part of `sweep`, from where they are imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from hausa_asr.settings.data import Strict


class WorkerRange(Strict):
    """As many workers as the cluster has room for when a trial's group starts, between two bounds."""

    min: int = Field(1, ge=1, description="The fewest workers that a trial is trained with.")
    max: int = Field(ge=1, description="The most.")

    @model_validator(mode="after")
    def _is_in_order(self) -> WorkerRange:
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, more than max, {self.max}")
        return self


WORKERS_TAGS = ("number", "range")
"""Pydantic's names of the two forms of `workers_per_trial`, which would puzzle in a message."""


def _form_of_workers(value: Any) -> str:
    return WORKERS_TAGS[isinstance(value, Mapping | WorkerRange)]


class ResourceSettings(Strict):
    """The hardware that one trial takes."""

    workers_per_trial: Annotated[
        Annotated[int, Field(ge=1), Tag("number")] | Annotated[WorkerRange, Tag("range")],
        Discriminator(_form_of_workers),
    ] = Field(
        1,
        description="Ray Train workers that share one trial: a number, or a range such as {min: 1, max: 8}, of which "
        "each group takes as many as there is room for when it starts. The global batch stays the same.",
    )
    gpus_per_worker: float = Field(
        0,
        ge=0,
        description="GPUs of each worker; with a fraction, several trials share one, each with one worker.",
    )
    cpus_per_worker: float = Field(
        1, gt=0, description="CPUs of each worker, which is also its number of PyTorch threads."
    )
    slots: int | None = Field(
        None,
        ge=1,
        description="The most trials side by side; by default as many as fit. On a cluster the sweep requests this "
        "number from Ray even if there are too few nodes, so that an autoscaler adds some.",
    )
    labels: dict[str, str] = Field(
        {},
        description="Labels that a worker's node must have in Ray, such as {ray.io/accelerator-type: H100}.",
    )
    audio_s_per_s: float | None = Field(
        None,
        gt=0,
        description="A trial's speed for the plan, in seconds of audio per second; by default it is measured.",
    )

    @model_validator(mode="after")
    def _share_no_gpu(self) -> ResourceSettings:
        if 0 < self.gpus_per_worker < 1 and self.most_workers > 1:
            raise ValueError(
                f"gpus_per_worker is {self.gpus_per_worker:g}, but the workers of one trial can't share a GPU (NCCL, "
                "which sums their gradients, refuses that): set gpus_per_worker to 1 or more, or workers_per_trial to 1"
            )
        return self

    @property
    def most_workers(self) -> int:
        """The most workers that a trial has."""
        workers = self.workers_per_trial
        return workers.max if isinstance(workers, WorkerRange) else workers

    @property
    def least_workers(self) -> int:
        """The fewest workers that a trial is trained with."""
        workers = self.workers_per_trial
        return workers.min if isinstance(workers, WorkerRange) else workers

    @property
    def has_range(self) -> bool:
        """Whether trials may have different numbers of workers."""
        return isinstance(self.workers_per_trial, WorkerRange)
