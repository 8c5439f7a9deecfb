"""The desk between a slot and its workers: a small actor that passes on jobs, messages and answers.

In a file of its own, since its process imports this file and should import little.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from hausa_asr.recipe import Answer
from sweeps.on_ray.messages import Message, Place, Reported


@ray.remote(num_cpus=0)
class Desk:
    """Pass jobs, messages and answers between a slot and its workers, either of which may crash and be started anew.

    Jobs are numbered, and every rank asks for the one after its last, so no rank waits in a collective for work.
    """

    def __init__(self) -> None:
        self._jobs: list[dict[str, Any]] = []
        self._closed = False
        self._messages: asyncio.Queue[tuple[int, Message]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Queue[Answer]] = {}
        self._changed = asyncio.Event()
        self._places: dict[int, Place] = {}

    # Called by the slot.

    def post(self, job: dict[str, Any]) -> int:
        """Hand out a job; returns its number."""
        self._jobs.append(job)
        self._answers[len(self._jobs) - 1] = asyncio.Queue()
        self._changed.set()
        return len(self._jobs) - 1

    async def message(self, number: int, timeout_s: float) -> Message | None:
        """The next message of a job; None after the timeout. Messages of earlier jobs are dropped."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (left_s := deadline - asyncio.get_running_loop().time()) > 0:
            try:
                of, message = await asyncio.wait_for(self._messages.get(), left_s)
            except TimeoutError:
                return None
            if of == number:
                return message
        return None

    def answer(self, number: int, answer: Answer) -> None:
        """Answer the last report of a job."""
        self._answers[number].put_nowait(answer)

    def places(self) -> dict[int, Place]:
        """Where each worker of the group is, by rank; empty before they have come."""
        return self._places

    def close(self) -> None:
        """Hand out no more jobs: every report is answered with STOP, and the workers end."""
        self._closed = True
        for answers in self._answers.values():
            answers.put_nowait(Answer.STOP)
        self._changed.set()

    # Called by Ray Train's controller.

    def placed(self, places: dict[int, Place]) -> None:
        """Take down where each worker is, before it imports anything."""
        self._places = places

    # Called by the workers.

    async def job_after(self, number: int) -> tuple[int, dict[str, Any]] | None:
        """The job after `number`, as soon as it is posted; None when the desk is closed."""
        while len(self._jobs) <= number + 1:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        return number + 1, self._jobs[number + 1]

    async def send(self, number: int, message: Message) -> None:
        """Send the slot a message that needs no answer."""
        self._messages.put_nowait((number, message))

    async def report(self, number: int, message: Reported) -> Answer:
        """Send the slot a report and wait for its answer."""
        self._messages.put_nowait((number, message))
        return await self._answers[number].get()
