"""Run functions on the cluster beside the slots: each with what a worker takes, and again elsewhere if one breaks.

In: a function and its arguments, once or many times. Out: what it returns. Called by `scoring`, `averaging` and
`listening`, whose work comes at a sweep's end, where a node that lacks a file must not cost the sweep its result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray

from hausa_asr.errors import first_line
from sweeps.on_ray.capacity import nodes
from sweeps.on_ray.slot import NODE_LABEL
from sweeps.planning.slots import SlotPlan, has_labels

log = logging.getLogger("sweeps")

_TRIES = 3


def as_done(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], plan: SlotPlan, at_once: int | None = None
) -> Iterator[tuple[int, Any]]:
    """Call a function many times on the cluster, from now on; give each result as it comes, with its number.

    Args:
        function: of a module, since it is named and not sent.
        calls: its arguments, one tuple for each call.
        plan: what a worker takes.
        at_once: at most so many side by side; by default all.

    Raises:
        Exception: what the function raised, when it has broken on three tries, each on another node if there is one.
    """
    work = _Work(function, calls, plan, at_once or len(calls))
    work.start()
    return work.results()


class _Work:
    """The calls that wait, those that run, and the nodes on which each has broken."""

    def __init__(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], plan: SlotPlan, at_once: int
    ) -> None:
        self._function, self._calls, self._plan, self._at_once = function, calls, plan, at_once
        self._waiting, self._running = list(range(len(calls))), {}  # type: ignore[var-annotated]
        self._broken: dict[int, list[str]] = {number: [] for number in self._waiting}

    def start(self) -> None:
        while self._waiting and len(self._running) < self._at_once:
            number = self._waiting.pop(0)
            task = _task(self._plan, self._broken[number])
            self._running[task.remote(self._function, self._calls[number])] = number

    def results(self) -> Iterator[tuple[int, Any]]:
        while self._running:
            (done, *_), _ = ray.wait(list(self._running))
            number = self._running.pop(done)
            try:
                node, result, error = ray.get(done)
            except ray.exceptions.RayError as lost:  # of its node or its process; Ray has tried it again by itself
                node, result, error = "", None, lost
            if error is not None:
                self._try_again(number, node, error)
            self.start()
            if error is None:
                yield number, result

    def _try_again(self, number: int, node: str, error: Exception) -> None:
        self._broken[number].append(node)
        if len(self._broken[number]) == _TRIES:
            raise error
        log.warning("%s broke and is tried again: %s", self._function.__name__, first_line(error))
        self._waiting.insert(0, number)


def _task(plan: SlotPlan, avoided: list[str]) -> Any:
    """Ray's task with what a worker takes, not on these nodes if there are others that have it."""
    labels = dict(plan.labels)
    others = [
        node for name, node in nodes().items() if name not in avoided and has_labels(node.labels, plan.labels)
        and all(node.resources.get(kind, 0.0) >= amount for kind, amount in plan.worker_resources.items())
    ]  # fmt: skip
    if (there := sorted({*filter(None, avoided)})) and others:
        labels[NODE_LABEL] = f"!in({','.join(there)})"
    resources = plan.worker_resources
    return _call.options(  # type: ignore[attr-defined]
        num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0), label_selector=labels or None
    )


@ray.remote
def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any, Exception | None]:
    """Call it here; gives the node, the result and what was raised."""
    node = ray.get_runtime_context().get_node_id()
    try:
        return node, function(*arguments), None
    except Exception as error:
        return node, None, error
