"""Report decoding progress and the time left.

In: clips, one after another, as they are decoded. Out: a `PrepareProgress` ten times a second at most. Called by
`prepare`; shown by `progress_bars`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hausa_asr.dataset.clip_store import Clips
from hausa_asr.dataset.decoder import Task
from hausa_asr.utterance import SAMPLE_RATE, Utterance

_REPORT_EVERY_S = 0.1


@dataclass(frozen=True)
class PrepareProgress:
    """How far the decoding is.

    Attributes:
        done, total: utterances.
        done_h, left_h: hours of audio, those left as the corpus states them or else at the mean of what was decoded.
        clips_per_s: of those decoded by this call; 0 before the first.
        eta_s: seconds until the last, None before the first.
    """

    done: int
    total: int
    done_h: float
    left_h: float
    clips_per_s: float
    eta_s: float | None

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.done / self.total if self.total else 1.0


ProgressCallback = Callable[[PrepareProgress], None]


class ProgressMeter:
    """Count decoded clips, and report how far the decoding is."""

    def __init__(
        self,
        listed: Sequence[Utterance],
        chosen: Mapping[int, str],
        clips: Clips,
        tasks: Sequence[Task],
        report: ProgressCallback | None,
    ) -> None:
        self._report = report
        self._began = self._reported = time.monotonic()
        self._total, self._before = len(listed), len(listed) - len(tasks)
        self._left = len(tasks)
        stated = [listed[task.number].duration_s for task in tasks]
        known = [each for each in stated if isinstance(each, (int, float)) and 0 < each < 3600]
        # Stated lengths count if every clip has one; else the mean of those decoded, here or before.
        self._stated_s = sum(known) if len(known) == len(tasks) else None
        heard = [number for number in chosen if clips.n_samples[number]]
        self._before_s = float(clips.n_samples[heard].sum()) / SAMPLE_RATE
        self._heard, self._heard_s, self._done = len(heard), 0.0, 0

    def add(self, seconds: float) -> None:
        """Count one more clip, of this length in seconds; report at most ten times a second."""
        self._done += 1
        self._heard_s += seconds
        if time.monotonic() - self._reported >= _REPORT_EVERY_S:
            self.report_now()

    def report_now(self) -> None:
        """Report how far it is now."""
        self._reported = now = time.monotonic()
        left = self._left - self._done
        mean_s = (self._before_s + self._heard_s) / max(1, self._heard + self._done)
        left_s = mean_s * left
        if self._stated_s is not None:
            left_s = max(0.0, self._stated_s * left / self._left if not self._done else self._stated_s - self._heard_s)
        speed = self._done / (now - self._began) if now > self._began else 0.0
        if self._report:
            self._report(
                PrepareProgress(
                    done=self._before + self._done,
                    total=self._total,
                    done_h=(self._before_s + self._heard_s) / 3600,
                    left_h=left_s / 3600 if left else 0.0,
                    clips_per_s=speed,
                    eta_s=left / speed if speed else None,
                )
            )
