"""The mirror's jobs: which is next, which wait for MLflow to come back, which are put aside.

In: jobs as they come up, and how each went. Out: the next job when it is due. Knows nothing of MLflow but whether a
fault is an outage. One thread takes jobs; any thread may add some or wait for all.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 15.0
"""Between two tries while MLflow is away."""
FILES_PAUSE_S = 60.0
"""Until an artifact is tried again: its store may be another than that of the figures, and broken."""


OWN_RUN = "the sweep's own run"


class Kind(Enum):
    """What a job writes. Figures go first: they are small, and an artifact's store may be slow."""

    FIGURES = "figures"
    FILES = "files"


class Job(NamedTuple):
    """One thing to bring up to date: the figures or the files of a trial's run, or of the sweep's own (`trial` "")."""

    kind: Kind
    trial: str

    def __str__(self) -> str:
        return f"the {self.kind.value} of {self.trial or OWN_RUN}"


OPENING = Job(Kind.FIGURES, "")
"""The first job of all: the sweep's own run has to be there before any other."""


class RetryQueue:
    """Hand out jobs one at a time, and decide when a failed one is tried again.

    Args:
        log_away: called once when MLflow goes away, with the fault; `log_back` when it answers again.
        log_fault: called once for each job that fails, until it succeeds.
    """

    def __init__(
        self,
        log_away: Callable[[Exception], None],
        log_back: Callable[[], None],
        log_fault: Callable[[Job, Exception], None],
    ) -> None:
        self._log_away, self._log_back, self._log_fault = log_away, log_back, log_fault
        self._changed = threading.Condition()
        self._due: dict[Job, float] = {OPENING: 0.0}  # with the earliest time for each, by the monotonic clock
        self._at_work: Job | None = None
        self._opened = self._closed = False
        self._pause_s = self._not_before = 0.0
        self._logged: set[Job] = set()

    def add(self, *jobs: Job) -> None:
        """Queue jobs, to be done soon. Returns at once."""
        self._put(jobs, 0.0)

    def add_new(self, *jobs: Job) -> None:
        """Queue jobs that are not queued yet; those that wait for another try go on waiting."""
        with self._changed:
            for job in jobs:
                self._due.setdefault(job, 0.0)
            self._changed.notify_all()

    def waiting(self) -> int:
        """How many jobs are not done, the one at work among them."""
        with self._changed:
            return len(self._due) + (self._at_work is not None)

    def opened(self) -> None:
        """The sweep's own run is there: other jobs may be handed out."""
        with self._changed:
            self._opened = True

    def close(self) -> None:
        """Hand out no more jobs."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> list[Job]:
        """Wait until all is done that can be, `timeout_s` at most; what was put aside is tried once more.

        Returns:
            The jobs that are not done.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._due = dict.fromkeys(self._due, 0.0)
            self._not_before = 0.0
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._at_work is None and all(at > deadline for at in self._due.values()), timeout_s
            )
            return [*self._due, *([self._at_work] if self._at_work else [])]

    def take(self) -> Job | None:
        """Wait for the next job; None when the queue is closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                wait_s = self._not_before - now
                if wait_s <= 0:
                    job = self._ready(now)
                    if job is not None:
                        self._due.pop(job, None)
                        self._at_work = job
                        return job
                    wait_s = min(self._candidates().values(), default=math.inf) - now
                self._changed.wait(wait_s if wait_s < threading.TIMEOUT_MAX else None)
            return None

    def done(self, job: Job, asked: bool) -> None:
        """A job went well; `asked` says whether MLflow had to be asked for it."""
        with self._changed:
            self._at_work = None
            if asked and self._pause_s:
                self._log_back()
                self._pause_s = 0.0
            self._logged.discard(job)
            self._changed.notify_all()

    def failed(self, job: Job, fault: Exception, outage: bool) -> None:
        """A job failed: it is tried again in a while, or put aside until it is queued anew."""
        with self._changed:
            self._at_work = None
            now = time.monotonic()
            known = job in self._logged
            self._logged.add(job)
            if job.kind is Kind.FILES:
                self._due.setdefault(job, now + FILES_PAUSE_S)
            elif outage or not self._opened:
                known = True  # an outage is logged once for all jobs
                # To the end of the line: if it is this run alone that gets no answer, the others go on.
                self._due.setdefault(job, 0.0)
                if not self._pause_s:
                    self._log_away(fault)
                self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
                self._not_before = now + self._pause_s
            else:
                self._due.setdefault(job, math.inf)  # until something happens to it again, or the end
            if not known:
                self._log_fault(job, fault)
            self._changed.notify_all()

    def _put(self, jobs: Iterable[Job], at_s: float) -> None:
        with self._changed:
            self._due |= dict.fromkeys(jobs, at_s)
            self._changed.notify_all()

    def _candidates(self) -> dict[Job, float]:
        return self._due if self._opened else {OPENING: 0.0}

    def _ready(self, now: float) -> Job | None:
        """The first job that is due, figures before files."""
        for kind in Kind:
            for job, at in self._candidates().items():
                if job.kind is kind and at <= now:
                    return job
        return None
