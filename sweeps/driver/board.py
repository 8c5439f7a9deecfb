"""The table of trials that a person follows: live on a terminal, plain lines elsewhere, in the sweep's log always.

In: the ledger's state. Out: a table with a last line that says how the sweep stands and when it will end. Updated by
Tune's callbacks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.finalists import missing
from sweeps.planning.forecast import last_interval
from sweeps.record.follow import Follower
from sweeps.record.ledger import Ledger
from sweeps.record.state import State
from sweeps.record.trial import TrialRecord
from sweeps.wording import amount, duration, many, short

log = logging.getLogger("sweeps")

_STYLES = {"running": "bold", "finished": "green", "paused": "dim", "pruned": "dim", "failed": "red"}
_COLUMNS = {
    "trial": 7,
    "state": 8,
    "step": 11,
    "loss": 6,
    "WER": 5,
    "best": 5,
    "CER": 5,
    "audio-s/s": 9,
    "left": 7,
}
_REFRESH_S = 1.0
_FORECAST_S = 60.0
"""Without a terminal, how often a line says how the sweep stands and when it will end."""
_SHOWN_ENDED = 12
"""How many ended trials stay on screen; the best always does."""


class Board:
    """Show the state of a ledger. Use it as a context manager.

    Args:
        ledger: the sweep's ledger, or where another process writes it, who follows it.
        config: the sweep's settings.
        slots: how many run side by side, until the ledger says.
        forecast: says in words when the sweep will end; called now and then.
        console: where to; one without a terminal gets a line per report.
        reports_before: how many reports there were when the sweep's driver began; by default as many as there are now.
        waited_s: how long ago it began, in seconds.
        remark: ends the last line, where it is not ""; may be replaced.
    """

    def __init__(
        self,
        ledger: Ledger | Follower,
        config: SweepConfig,
        slots: int,
        forecast: Callable[[State], str],
        console: Console,
        *,
        reports_before: int | None = None,
        waited_s: float = 0.0,
        remark: Callable[[], str] = str,
    ) -> None:
        self._ledger, self._config, self._planned_slots, self._console = ledger, config, slots, console
        self._forecast, self.remark = forecast, remark
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        self._next_tick = self._next_forecast = 0.0
        self._shown_s, self._has_reported = time.monotonic() - waited_s, False
        self._reports_before = _count_reports(ledger.state) if reports_before is None else reports_before
        self._said: dict[str, str] = {}

    def __enter__(self) -> Board:
        if self._live:
            self._live.start()
            self._live.update(self._picture(), refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.update(self._picture(), refresh=True)
            self._live.stop()

    def update(self, trial_id: str) -> None:
        """Something happened to a trial."""
        line = describe(self._ledger.state.trials[trial_id])
        if line == self._said.get(trial_id):  # Tune calls for a trial's last report and for its end
            return
        self._said[trial_id] = line
        log.info("%s", line)
        if self._live:
            self._live.update(self._picture(), refresh=True)
        else:
            self._console.print(Text(line), soft_wrap=True)
            if time.monotonic() >= self._next_forecast:
                self._next_forecast = time.monotonic() + _FORECAST_S
                self._console.print(Text(f"  {self._footer()}"), style="dim", soft_wrap=True)

    def tick(self) -> None:
        """Keep the clocks going; called often."""
        if self._live and time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + _REFRESH_S
            self._live.update(self._picture(), refresh=True)

    @property
    def _slots(self) -> int:
        return self._ledger.state.slots or self._planned_slots

    def _picture(self) -> Group:
        state = self._ledger.state
        best = state.best()
        shown = [t for t in state.trials.values() if t.is_open]
        left = [t for t in state.trials.values() if not t.is_open]
        recent = sorted(left, key=lambda t: t.reports[-1].time if t.reports else 0.0)[-_SHOWN_ENDED:]
        if best and not best.is_open and best not in recent:
            recent.insert(0, best)
        table = Table(title=f"sweep {state.name}", title_justify="left", box=None, pad_edge=False, expand=True)
        for heading, width in _COLUMNS.items():  # fixed, so that long settings are cut and not the figures
            justify: Literal["left", "right"] = "left" if heading in ("trial", "state") else "right"
            table.add_column(heading, justify=justify, width=width, no_wrap=True)
        table.add_column("settings", ratio=1, no_wrap=True, overflow="ellipsis")
        for trial in sorted([*recent, *shown], key=lambda t: t.id):
            style = "bold green" if best is not None and trial.id == best.id else _STYLES.get(trial.state, "")
            table.add_row(*_cells(trial), style=style)
        return Group(table, Text(self._footer()))

    def _reported(self) -> bool:
        """Whether a slot of this driver has reported; before that its workers are still starting."""
        if not self._has_reported:
            self._has_reported = _count_reports(self._ledger.state) > self._reports_before
        return self._has_reported

    def _waiting(self) -> str:
        """What is waited for before the first report."""
        waited = duration(time.monotonic() - self._shown_s)
        return f"{many(self._slots, 'worker group')} starting, then the first updates ({waited} so far)"

    def _footer(self) -> str:
        state = self._ledger.state
        tried = sum(not trial.is_open for trial in state.searched)
        parts = [f"{tried} of {self._config.search.trials} trials tried, {self._slots} side by side"]
        if runs := state.finalists:
            every = len(runs) + len(missing(state, self._config))
            parts.append(f"{sum(not run.is_open for run in runs)} of {many(every, 'finalist run')} done")
        if state.left is None:  # else nothing will come until somebody resumes it
            parts.append(self._forecast(state) if self._reported() else self._waiting())
        best, baseline = state.best(), state.baseline()
        if best and best.best:
            parts.append(f"best {best.best['wer']:.3f} ({best.id})")
        if baseline and baseline.best:
            share = baseline.seen_s / self._config.recipe(baseline.settings).length_s
            so_far = "" if baseline.state == "finished" else f" after {share:.0%}"
            parts.append(f"baseline {baseline.best['wer']:.3f}{so_far}")
        parts.append(self.remark())
        return " · ".join(part for part in parts if part)


def _count_reports(state: State) -> int:
    return sum(len(trial.reports) for trial in state.trials.values())


def _cells(trial: TrialRecord) -> list[str]:
    settings = " ".join(f"{name}={short(value)}" for name, value in trial.settings.items())
    if trial.source != "search":
        settings = f"{trial.source}{f' of {trial.of}' if trial.of else ''}: {settings}"
    if not trial.reports:
        return [trial.id, trial.state, *[""] * 7, settings]
    last = trial.reports[-1]
    figures = last.metrics
    return [
        trial.id,
        trial.state,
        f"{last.step}/{last.updates}",
        f"{figures['loss']:.3f}",
        f"{figures['wer']:.3f}",
        f"{last.best['wer']:.3f}",
        f"{figures['cer']:.3f}",
        amount(figures["audio_s_per_s"]),
        duration(left_s(trial)) if trial.is_open else "",
        settings,
    ]


def describe(trial: TrialRecord) -> str:
    """A trial in one line of plain text."""
    parts = [trial.id, trial.state]
    if trial.reports:
        last = trial.reports[-1]
        figures = last.metrics
        parts += [
            f"step {last.step}/{last.updates}",
            f"loss {figures['loss']:.3f}",
            f"WER {figures['wer']:.3f}",
            f"(best {last.best['wer']:.3f})",
            f"{amount(figures['audio_s_per_s'])} audio-s/s",
        ]
        if trial.is_open:
            parts.append(f"{duration(left_s(trial))} left")
    else:
        parts.append(" ".join(f"{name}={short(value)}" for name, value in trial.settings.items()))
    if trial.reason:
        parts.append(f"({trial.reason})")
    return "  ".join(parts)


def left_s(trial: TrialRecord) -> float:
    """Seconds that a running trial still needs, at the pace of its last interval, evaluation included."""
    last = trial.reports[-1]
    audio_s, took_s = last_interval(trial)
    length_s = last.seen_s * last.updates / last.step
    return max(0.0, (length_s - last.seen_s) / max(audio_s / max(took_s, 1e-9), 1e-9))
