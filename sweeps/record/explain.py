"""Why a trial went on or ended: its decisions, as the ledger has them, in words.

In: a sweep's folder and a trial's id. Out: text. Called by `run --explain`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hausa_asr.errors import UserError
from sweeps.pruning.rule import FIGURES, who_goes_on
from sweeps.record.folders import bring, sweeps_in
from sweeps.record.ledger import read_state
from sweeps.record.trial import TrialRecord
from sweeps.wording import duration


def find(storage: str, name: str) -> tuple[Path, str]:
    """Find the sweep and the trial that a name means: `t004` is of the newest sweep, `SWEEP/t004` names it.

    Raises:
        UserError: there is no such sweep.
    """
    sweep, _, trial = name.rpartition("/")
    sweeps = [one for one in sweeps_in(storage) if sweep in ("", one)]
    if not sweeps:
        raise UserError(
            f"There is no sweep {sweep} to explain." if sweep else "There is no sweep to explain.",
            where=storage,
            fix="Name it as SWEEP/TRIAL, and give its storage with --set storage=DIR.",
        )
    return bring(storage, sweeps[-1]), trial


def explain(folder: Path, name: str) -> str:
    """Say what became of a trial and why.

    Args:
        folder: the sweep's folder.
        name: the trial's id.

    Raises:
        UserError: the sweep has no such trial.
    """
    state = read_state(folder)
    trial = state.trials.get(name)
    if trial is None:
        known = list(state.trials)
        names = ", ".join(known) if len(known) <= 12 else f"{known[0]} to {known[-1]}"
        raise UserError(f"The sweep {folder.name} has no trial {name}.", where=folder, fix=f"Name one of: {names}.")
    lines = [
        f"{name} of sweep {folder.name}: {_state(trial)}",
        f"  from      {trial.source}{f' of {trial.of}' if trial.of else ''}",
        "  settings  " + ", ".join(f"{key}={value}" for key, value in trial.settings.items()),
        f"  spent     {duration(trial.spent_s)}"
        + (f", {trial.seen_s:.0f} s of audio in {trial.last_step} steps" if trial.reports else ""),
    ]
    if trial.best:
        lines.append(
            f"  best      WER {trial.best['wer']:.4f}, CER {trial.best['cer']:.4f}, loss {trial.best['loss']:.4f} at "
            f"step {trial.best['step']}"
        )
    lines.append("  evaluations (seconds of audio: WER, CER, loss)")
    lines += [f"    {p.seen_s:>9.0f}: {p.wer:.3f}, {p.cer:.3f}, {p.loss:.4f}" for p in trial.points]
    if not trial.decisions:
        lines.append(f"  It was ranked at no rung{_why_not(trial, state.marks)}.")
    for decision in trial.decisions:
        lines.append("  " + _decision(decision, trial))
    if trial.recalled:
        if trial.is_baseline:
            lines.append(
                "  As the baseline it was sent on to its end when no setting, or no time, was left to wait for."
            )
        else:
            lines.append("  Second look: when no new setting was left, it was among the best that waited, and went on.")
    if trial.dropped:
        lines.append("  Its optimizer state made room on the disk, so it cannot go on.")
    return "\n".join(lines)


def _state(trial: TrialRecord) -> str:
    reason = f", {trial.reason}" if trial.reason else ""
    return f"{trial.state}{reason}{f' ({trial.detail})' if trial.detail else ''}"


def _why_not(trial: TrialRecord, marks: list[float]) -> str:
    if trial.of:
        return ": finalists run to their end"
    if not marks:
        return ": the sweep does not prune"
    if trial.seen_s < marks[0]:
        return f": the first is at {marks[0]:.0f} s of audio"
    return ": it was still warming up or frozen at those that it came to"


def _decision(decision: dict[str, Any], trial: TrialRecord) -> str:
    what = FIGURES[decision["metric"]]
    stood = (
        f"rung {decision['rung'] + 1} ({decision['rung_s']:.0f} s), ranked by {what} with {decision['cohort']} trials: "
        f"number {decision['place']} with {decision['value']:.4f} at {decision['seen_s']:.0f} s; "
        f"{who_goes_on(decision['passing'], decision['cutoff'])}"
    )
    if decision.get("promoted"):
        return f"{stood}: promoted, it went on from its checkpoint"
    if not decision["passed"]:
        return f"{stood}: paused" + (", since the baseline waits for more" if _was_good_enough(decision) else "")
    if trial.is_baseline and not _was_good_enough(decision):  # in sweeps of older versions
        return f"{stood}: went on, since the baseline was never paused"
    return f"{stood}: went on"


def _was_good_enough(decision: dict[str, Any]) -> bool:
    return bool(decision["place"] <= decision["passing"])
