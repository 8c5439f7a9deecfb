"""Ray Train's trainer for a slot, with fewer processes: each would take over 100 MB of the head for every slot.

In: how many workers a trial has. Out: a trainer class, the workers' environment, and a callback that says where they
are. Called by `slot`.
"""

from __future__ import annotations

import asyncio
import functools
import os
from typing import Any

import ray

_HELPERS = ("DatasetsCallback", "PlacementGroupCleanerCallback")
"""What starts helpers: for Ray Data, which we don't use, and to free a dead slot's place, which `guard` does."""
_ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"


def trainer_of(workers: int) -> Any:
    """Ray Train's trainer for a group: PyTorch's own if several workers share a process group.

    A single worker needs none, and importing `ray.train.torch`, which brings torch, would cost two more processes of
    each slot more than a second before the worker itself can begin.
    """
    if workers == 1:
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

        return _lean(DataParallelTrainer)
    from ray.train.torch import TorchTrainer

    return _lean(TorchTrainer)


@functools.cache
def _lean(trainer: Any) -> Any:
    """The same trainer without the helpers, and with its controller in this process rather than in one of its own.

    A later Ray that has other names for these things starts them as it always did.
    """
    from ray.train.v2._internal.execution.controller import TrainController

    class Lean(trainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [one for one in callbacks if type(one).__name__ not in _HELPERS]

        def _initialize_and_run_controller(self, **given: Any) -> Any:
            # An actor of Ray's by default. Here it is as good: whoever has a slot killed wants the workers gone too.
            controller = TrainController(**given)
            asyncio.run(controller.run())
            return controller.get_result()

    return Lean


def environment_of(gpus: float) -> dict[str, Any]:
    """Environment variables that each worker gets before it imports anything, as Ray takes them.

    torch reads it when it first touches a GPU. For several workers Ray Train does that before any function of ours.
    """
    if not gpus:
        return {}
    # Trials with other batch sizes follow each other: their memory must not be in pieces.
    return {"env_vars": {_ALLOCATOR: os.environ.get(_ALLOCATOR, "expandable_segments:True")}}


def who_places(desk: Any) -> Any:
    """A callback of Ray Train's that writes down at the desk where each worker is.

    It comes before the workers import anything: one whose GPU, driver or Python packages are broken could not say so
    itself. Several that share a process group import torch before they run a function of ours.
    """
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class Places(WorkerGroupCallback):
        def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
            ray.get(desk.placed.remote({
                one.distributed_context.world_rank: (one.metadata.node_id, one.metadata.node_ip) for one in workers
            }))  # fmt: skip
            return {}

    return Places()
