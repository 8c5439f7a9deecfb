"""The report of a sweep as one page: `report.html` in its folder, with the pictures inside and nothing from outside.

In: the settings, the ledger's state and the finalists' verdict. Written at the end of a sweep; it may be written again
at any time, from the ledger alone, and for a sweep that has not ended.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from hausa_asr.files import write_whole
from hausa_asr.html import page, picture, table
from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.budget import hours_word, spent
from sweeps.pruning.rule import FIGURES
from sweeps.record.names import REPORT_FILE
from sweeps.record.state import State, TrialRecord
from sweeps.report.figures import TrialRow, rung_rows, trial_rows
from sweeps.verdict.compare import Difference
from sweeps.verdict.verdict import Verdict
from sweeps.wording import duration, in_brackets, short


def write_report(
    config: SweepConfig,
    state: State,
    folder: Path,
    *,
    verdict: Verdict | None,
    dev_s: float | None,
    test: Mapping[str, Mapping[str, float]] | None = None,
    headline: str = "",
    stopped: str = "",
    growth: str = "",
) -> Path:
    """Write the page, all of it or nothing.

    Args:
        config: the sweep's settings.
        state: what its ledger adds up to.
        folder: the sweep's.
        verdict: what the finalists showed; None where none ran.
        dev_s: seconds of audio in dev, for the real-time factor; None where that is not known.
        test: test scores (`wer`, `cer`) by setting, means over seeds, of those that were scored.
        headline: what is known of the winner on test where no finalists ran.
        stopped: how many trials the rungs have stopped, and the chance that one of them would have won, in words.
        growth: what more data would give, in words.

    Returns:
        The file.

    Raises:
        OSError: it can't be written.
    """
    unit = hours_word(config.resources)
    rows = trial_rows(state, config.resources, dev_s)
    parts = [
        *_header(config, state, rows, verdict, headline, growth, unit),
        *(_finalists(verdict, test or {}) if verdict else ()),
        *_curves(state, verdict),
        *_pareto(rows, unit),
        *_pruning(state, stopped),
        *_failed(state),
        *_trials(state, rows, verdict, unit),
    ]
    write_whole(folder / REPORT_FILE, page(f"Sweep {state.name}", parts))
    return folder / REPORT_FILE


def _header(
    config: SweepConfig,
    state: State,
    rows: Sequence[TrialRow],
    verdict: Verdict | None,
    headline: str,
    growth: str,
    unit: str,
) -> Iterator[str]:
    yield f"<h1>Sweep {escape(state.name)}</h1>"
    lead, *notes = verdict.sentences() if verdict else [*filter(None, [headline]), *_without_finalists(state)]
    yield f'<p class="lead">{escape(lead)}</p>'
    if config.finalists.soup and state.soup and (verdict or headline):
        notes.append(state.soup["sentence"])
    notes += filter(None, [growth])
    yield from (f'<p class="note">{escape(note)}</p>' for note in notes)
    took, price = spent(state, config), config.budget.price_per_hour
    paid = f", {took.money:,.2f} at {price:g} an hour" if price else ""
    of_final = sum(row.hours for row in rows if row.trial.of)
    part = f", of which finalists {of_final:,.2f}" if of_final else ""
    states = Counter(trial.state for trial in state.searched)
    facts = {
        "spent": f"{took.hours:,.2f} {unit}{paid}{part}",
        "wall-clock": duration(took.wall_s),
        "trials": f"{len(state.searched):,}: " + ", ".join(f"{count:,} {name}" for name, count in states.most_common()),
        "base checkpoint": " or ".join(config.bases),
        "dataset": state.prepared,
    }
    yield table((), [[name, value] for name, value in facts.items() if value], "")


def _without_finalists(state: State) -> list[str]:
    best, base = state.best(), state.baseline()
    if best is None or best.best is None:
        return ["no trial has been scored yet"]
    line = f"lowest dev WER {best.id} {best.best['wer']:.3f}, on one seed and without finalists"
    if base is not None and base.best and base is not best:
        line += f"; baseline {base.best['wer']:.3f}" + ("" if base.state == "finished" else ", which is not at its end")
    return [line]


def _finalists(verdict: Verdict, test: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    from sweeps.report.pictures import forest

    yield "<h2>Finalists</h2>"
    known = all(one.p_best is not None for one in verdict.standings)
    lines = []
    for one in verdict.standings:
        tested = test.get(one.setting)
        name = one.setting + (" (baseline)" if one.setting == verdict.baseline else "")
        seeds = ", ".join(f"{wer:.3f}" for wer in one.seeds.values())
        lines.append([
            name, f"{one.wer:.3f}", in_brackets(one.low, one.high), seeds, *([f"{one.p_best:.2f}"] if known else []),
            f"{tested['wer']:.3f}" if tested else "",
        ])  # fmt: skip
    columns = (
        "setting", "#dev WER", "#95 % interval", "#by seed", *(["#P(best)"] if known else []), "#test WER, mean",
    )  # fmt: skip
    classes = ["lead" if one.setting == verdict.winner else "" for one in verdict.standings]
    yield table(columns, lines, "The best settings and the baseline, trained again on fresh seeds.", classes)
    on_test = verdict.on_test
    if on_test and on_test.difference:
        against = _against(verdict, "the baseline", on_test.difference, on_test.relative)
        yield f"<p>On test, {escape(against)} Test took no part in the search; dev chose the winner.</p>"
    second = None if verdict.to_runner_up == verdict.to_baseline else verdict.to_runner_up
    for other, difference, relative in (
        ("the baseline", verdict.to_baseline, verdict.relative), ("the runner-up", second, None),
    ):  # fmt: skip
        if difference:
            yield f"<p>On dev, {escape(_against(verdict, other, difference, relative))}</p>"
    caption = "Squares are means over seeds, ticks single seeds, and the dashed line is the baseline."
    rates = "; ".join(f"{s.setting} {s.wer:.3f} {in_brackets(s.low, s.high)}" for s in verdict.standings)
    yield picture(forest(verdict), f"Dev WER of the finalists with 95 % intervals: {rates}.", caption)


def _against(verdict: Verdict, other: str, difference: Difference, relative: float | None) -> str:
    share = "" if relative is None else f", {abs(100 * relative):.0f} % {'fewer' if relative <= 0 else 'more'} errors"
    return f"{verdict.winner} against {other}, {difference.other}: {difference}{share}."


def _curves(state: State, verdict: Verdict | None) -> Iterator[str]:
    from sweeps.report.pictures import chosen_curves, curves

    drawn, reported = len(chosen_curves(state)), sum(bool(trial.reports) for trial in state.searched)
    if not drawn:
        return
    of_all = (
        f"{drawn:,} of {reported:,} trials are drawn, the best of them and a choice of the others. "
        if drawn < reported
        else ""
    )
    yield "<h2>Learning curves</h2>"
    lead = _lead(state, verdict)
    best = state.trials[lead].best if lead else None
    ends = f" {lead} comes to a WER of {best['wer']:.3f}." if best else ""
    yield picture(
        curves(state, lead, "winner" if verdict else "lowest WER"),
        f"Dev WER and eval loss of {drawn} trials over the seconds of audio trained on, with {len(state.marks)} rungs."
        + ends,
        of_all + "WER stays near 1 until a trial has left the CTC plateau; the loss falls before that.",
    )


def _pareto(rows: Sequence[TrialRow], unit: str) -> Iterator[str]:
    from sweeps.report.pictures import fronts

    on_hours = [row.trial.id for row in rows if row.on_hours]
    on_speed = [row.trial.id for row in rows if row.on_speed]
    if not on_hours:
        return
    yield "<h2>What a lower WER takes</h2>"
    on_fronts = f"On the front of WER against {unit}: {', '.join(on_hours)}."
    if on_speed:
        on_fronts += f" On that against real-time factor: {', '.join(on_speed)}."
    yield picture(
        fronts(rows, unit),
        f"Dev WER of each trial against its {unit} and its real-time factor, with both Pareto fronts. {on_fronts}",
        f"{on_fronts} No other trial has a lower WER for as little. The real-time factor was measured while the sweep "
        "scored dev, other trials beside it: small differences say nothing.",
    )


def _pruning(state: State, stopped: str) -> Iterator[str]:
    yield "<h2>Pruning</h2>"
    tallies = rung_rows(state)
    if tallies:
        lines = [
            [
                str(number), f"{one.at_s:,.0f}", str(one.ranked), str(one.ranked - sum(one.stopped.values())),
                str(sum(one.stopped.values())), ", ".join(FIGURES[name] for name in sorted(one.stopped)),
            ]
            for number, one in enumerate(tallies, start=1)
        ]  # fmt: skip
        columns = ("rung", "#seconds of audio", "#ranked", "#went on", "#stopped", "ranked by")
        yield table(columns, lines, "How many trials stopped for good at which rung, and what they were ranked by.")
    else:
        yield "<p>This sweep has no rungs: every trial ran to its end.</p>"
    if stopped:
        yield f"<p>Stopped: {escape(stopped)}.</p>"
    if state.marks:
        what = "What pruning would have done to the trials that ran to their end"
        yield f"<p>{what}: <code>{escape(_replay(state))}</code></p>"


def _replay(state: State) -> str:
    """The command that replays the sweep's complete curves with its rule."""
    return f"python -m sweeps.replay --sweep {state.name}"


def _failed(state: State) -> Iterator[str]:
    failed = [trial for trial in state.trials.values() if trial.state == "failed"]
    if failed:
        yield "<h2>Diverged and failed</h2>"
        lines = [[t.id, _why(t), f"{t.seen_s:,.0f}", _settings(t)] for t in failed]
        yield table(("trial", "reason", "#at seconds of audio", "*settings"), lines, "")


def _trials(state: State, rows: Sequence[TrialRow], verdict: Verdict | None, unit: str) -> Iterator[str]:
    yield "<h2>Trials</h2>"
    lead = _lead(state, verdict)
    lines, classes = [], []
    for row in rows:
        trial, scores = row.trial, row.trial.best or {}
        fronts = [name for name, on in (("hours", row.on_hours), ("speed", row.on_speed)) if on]
        lines.append([
            trial.id, f"{trial.source} of {trial.of}" if trial.of else trial.source, trial.state,
            str(max(trial.last_step, 0)), *(_number(scores.get(name)) for name in ("wer", "cer", "loss")),
            f"{trial.spent_s:,.0f}", f"{row.hours:.3f}", _number(row.real_time_factor, 4), ", ".join(fronts),
            _why(trial), _settings(trial),
        ])  # fmt: skip
        classes.append("lead" if trial.id == lead else "baseline" if trial.source == "baseline" else "")
    columns = (
        "trial", "source", "state", "#steps", "#WER", "#CER", "#loss", "#seconds", f"#{unit}", "#real-time factor",
        "Pareto front", "reason", "*settings",
    )  # fmt: skip
    caption = "By dev WER of the best checkpoint; CER and loss are that checkpoint's. Finalists come last."
    yield table(columns, lines, caption, classes)


def _lead(state: State, verdict: Verdict | None) -> str:
    """The trial that stands out: the winner, or the lowest dev WER where no finalists ran; "" before that."""
    best = state.best()
    return verdict.winner if verdict else best.id if best else ""


def _why(trial: TrialRecord) -> str:
    return f"{trial.reason}: {trial.detail}" if trial.detail else trial.reason


def _settings(trial: TrialRecord) -> str:
    return ", ".join(f"{name} {short(value)}" for name, value in trial.settings.items())


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}" if math.isfinite(value) else str(value)
