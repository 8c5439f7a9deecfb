"""What is done when Ray's own processes are killed, for their memory say, where Ray itself leaves a sweep hanging.

In: a connected Ray. Out: the CPUs of killed slots' workers, given back; and for a local Ray that has ended
a call that ends the driver. Called by `run.py`, which holds `watched` around all that needs Ray.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from sweeps.on_ray.capacity import own_groups

log = logging.getLogger("sweeps")

_LOOK_S = 1.0
_SERVERS = {"gcs_server", "raylet"}
"""Ray's names for the processes that it can't do without."""


@contextmanager
def watched(logs: Path, lost: Callable[[], None]) -> Iterator[None]:
    """Watch over Ray for the length of the block.

    Without its servers a local Ray goes on for up to a minute, with actors that may no longer answer, and then ends the
    driver without a word of what to do.

    Args:
        logs: where the logs of a local Ray that has ended are kept.
        lost: called then, by whichever thread notices first. It must end the process, without Ray, which can't even be
            shut down any more.
    """
    node = ray._private.worker._global_node  # where a cluster was joined it has no processes of its own
    over, once = threading.Event(), threading.Lock()

    def check() -> None:
        if node is not None and _SERVERS & {kind for kind, _ in node.dead_processes()}:
            with once:  # never left
                _keep_logs(node, logs)
                lost()

    def look() -> None:
        while not over.wait(_LOOK_S):
            check()

    def tidy() -> None:
        while not over.wait(_LOOK_S):
            free_orphans()

    for work in (look, tidy):  # apart, since whoever asks a server that has just ended waits for long
        threading.Thread(target=work, name=f"ray-{work.__name__}", daemon=True).start()
    try:
        yield
    except Exception:
        check()  # it may be the reason
        raise
    finally:
        over.set()


def free_orphans() -> None:
    """Give back the CPUs and GPUs that the workers of this sweep's killed slots held.

    Ray Train has a helper for that, which asks Ray's dashboard whether its controller lives. A local Ray has no
    dashboard, so the next worker group would wait for ever.
    """
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    try:
        for group in own_groups():
            orphaned = group.creator_actor_dead and not ray.ActorID(group.creator_actor_id).is_nil()
            if orphaned and group.state != group.REMOVED:
                remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    except Exception as error:  # asked again in a moment
        log.warning("Ray's placement groups could not be looked through: %s", error)


def _keep_logs(node: Any, logs: Path) -> None:
    session = Path(node.get_session_dir_path())
    try:
        shutil.copytree(session / "logs", logs / session.name, dirs_exist_ok=True, ignore_dangling_symlinks=True)
    except (OSError, shutil.Error) as error:
        log.warning("Ray's logs could not be kept: %s", error)
