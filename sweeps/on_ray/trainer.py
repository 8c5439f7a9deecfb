"""Ray Train's trainer for a slot, with fewer helpers: each of them is a process of over 100 MB for every slot.

In: how many workers a trial has. Out: a trainer class, and the clearing up that one of the helpers did. Called by
`slot` and, in the driver, by `capacity`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

_HELPERS = ("DatasetsCallback", "PlacementGroupCleanerCallback")
"""What starts a helper: one for Ray Data, which we don't use; one that frees a dead slot's place, which `free` does."""


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
    """The same trainer without the helpers, or with them if a later Ray has other names for these things."""

    class Lean(trainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [one for one in callbacks if type(one).__name__ not in _HELPERS]

    return Lean


def free(groups: Iterable[Any]) -> None:
    """Remove the placement groups whose maker has died, such as the one of a slot that was killed.

    Ray keeps them until the driver ends, so nobody else would get these CPUs and GPUs.

    Args:
        groups: this driver's, as `gcs_pb2.PlacementGroupTableData`.
    """
    from ray._raylet import PlacementGroupID
    from ray.util import remove_placement_group
    from ray.util.placement_group import PlacementGroup

    for group in groups:
        by_actor = bool(group.creator_actor_id.strip(b"\xff"))  # else by the driver, whose actor counts as dead
        if by_actor and group.creator_actor_dead and not group.is_detached and group.state != group.REMOVED:
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))
