"""What has broken a slot, from the errors that Ray Train raises: the reason, and the node that it came from."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import ray
import torch
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from hausa_asr.errors import TooLittleMemory, UserError
from sweeps.on_ray.broken import NoRoom, SlotBroken, broken_by, of_group, place_of
from sweeps.on_ray.workers import failed_by

PLACES = {0: ("a", "10.0.0.1"), 1: ("b", "10.0.0.2"), 2: ("b", "10.0.0.2")}
IMPORT = ImportError("libcudart.so.13: cannot open shared object file")
DEAD = WorkerHealthCheckFailedError("A worker health check failed.", ActorDiedError())


def group_of(failures: dict[int, Exception]) -> WorkerGroupError:
    """The error as the slot has it, which has come from another process."""
    error: WorkerGroupError = pickle.loads(pickle.dumps(WorkerGroupError("...", failures)))
    return error


@pytest.mark.parametrize(
    ("failures", "node", "reason"),
    [
        ({1: IMPORT}, "b", "ImportError: libcudart"),
        ({0: IMPORT}, "a", "ImportError: libcudart"),
        ({0: RuntimeError("Connection closed by peer"), 2: DEAD}, "b", "ActorDiedError"),
    ],
)
def test_of_several_workers_the_one_that_broke_names_the_node(
    failures: dict[int, Exception], node: str, reason: str
) -> None:
    broken = of_group(group_of(failures), PLACES, trained=False)
    assert (broken.node, broken.host) == (node, {"a": "10.0.0.1", "b": "10.0.0.2"}[node])
    assert broken.reason.startswith(f"the worker group has ended: {reason}")


@pytest.mark.parametrize(("ip", "node"), [("10.0.0.2", "b"), ("10.0.0.1", "a"), ("10.0.0.12", "")])
def test_what_broke_while_the_group_was_set_up_is_found_by_its_address(
    ip: str, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.9")
    text = f"ray::RayTrainWorker.execute() (pid=7, ip={ip}, actor_id=1)\nImportError"
    error = ControllerError(RayTaskError("execute", text, IMPORT, "", 7, ip).as_instanceof_cause())
    broken = of_group(error, PLACES, trained=False)
    assert broken.node == node and "libcudart" in broken.reason
    assert node or broken.host == "10.0.0.1, 10.0.0.2", "one of these it is"


def test_before_any_worker_has_come_no_node_is_named() -> None:
    broken = of_group(ControllerError(RuntimeError("no")), {}, trained=False)
    assert (broken.node, broken.host) == ("", "")
    assert of_group(None, {0: ("a", "10.0.0.1")}, trained=False).node == "a"


LACK = torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("trained", [True, False])
def test_too_little_memory_for_one_utterance_is_the_trials_own_fault_once_it_was_taken(trained: bool) -> None:
    assert of_group(group_of({1: TooLittleMemory("for one")}), PLACES, trained).own is trained
    assert not of_group(group_of({1: LACK}), PLACES, trained).own, "another process may be on the card"


@pytest.mark.parametrize(
    ("error", "own", "reason"),
    [(TooLittleMemory("for one"), True, "TooLittleMemory: for one"), (LACK, False, "OutOfMemoryError: CUDA out of"),
     (UserError("The GPU is too old.", fix="Another."), False, "UserError: The GPU is too old."),
     (ValueError(), False, "ValueError")],
)  # fmt: skip
def test_of_what_a_worker_raises_only_too_little_memory_for_one_utterance_is_the_trials_own(
    error: Exception, own: bool, reason: str
) -> None:
    failed = failed_by(error)
    assert failed.own is own and failed.error.startswith(reason)


@pytest.mark.parametrize(
    "raised", [SlotBroken("it broke", "n", "h", True), NoRoom("no worker came"), NoRoom("its node", "n", "h")]
)
def test_tunes_text_is_read_back(raised: Any) -> None:
    text = f"Traceback ...\nsweeps.on_ray.broken.{type(raised).__name__}: {raised}\n"
    read = broken_by(text)
    assert type(read) is type(raised) and vars(read) == vars(raised)


def test_any_other_text_is_the_reason_itself() -> None:
    broken = broken_by("Traceback\nray.exceptions.ActorDiedError: The actor died.\n\n")
    assert type(broken) is SlotBroken and "ActorDiedError: The actor died." in broken.reason and not broken.node


def test_one_place_for_several_workers() -> None:
    assert place_of([("a", "h"), ("a", "h")]) == ("a", "h")
    assert place_of(PLACES.values()) == ("", "10.0.0.1, 10.0.0.2")
    assert place_of([]) == ("", "")
