"""The report of a sweep as one page: `report.html` in its folder, with charts and sounds inside, and nothing to load.

In: the settings, the ledger's state, and what the sweep's end found. Written at that end; it may be written again at
any time, from the ledger alone, and for a sweep that has not ended (`live`). The template is `templates/report.html`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plotly.offline import get_plotlyjs

from hausa_asr.diagnosis.examples import TEMPLATES as OF_DIAGNOSIS
from hausa_asr.diagnosis.page import View
from hausa_asr.files import write_whole
from hausa_asr.html import Table, render
from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.budget import hours_word, spent
from sweeps.record.names import REPORT_FILE
from sweeps.record.state import State
from sweeps.report import charts, search
from sweeps.report.charts import Chart
from sweeps.report.figures import TrialRow, trial_rows
from sweeps.report.parts import Part, Section, Text
from sweeps.verdict.compare import Difference
from sweeps.verdict.verdict import Verdict
from sweeps.wording import duration, in_brackets

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Findings:
    """What the end of a sweep found, as far as it has come.

    Attributes:
        verdict: what the finalists showed; None where none ran.
        test: test scores (`wer`, `cer`) by setting, means over seeds, of those that were scored.
        headline: what is known of the winner on test where no finalists ran.
        stopped: how many trials the rungs have stopped, and the chance that one of them would have won, in words.
        growth: what more data would give, in words.
        with_lm: the winner against the baseline, both with a language model, in words.
        diagnosis: what the winner's model gets wrong, beside the baseline's; None where that is not known.
    """

    verdict: Verdict | None = None
    test: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    headline: str = ""
    stopped: str = ""
    growth: str = ""
    diagnosis: View | None = None
    with_lm: str = ""


def write_report(
    config: SweepConfig, state: State, folder: Path, found: Findings, *, dev_s: float | None, live: bool = False
) -> Path:
    """Write the page, all of it or nothing.

    Args:
        config: the sweep's settings.
        state: what its ledger adds up to.
        folder: the sweep's.
        found: what its end found; nothing before that.
        dev_s: seconds of audio in dev, for the real-time factor; None where that is not known.
        live: the sweep goes on, and the page is to load itself again every half minute.

    Returns:
        The file.

    Raises:
        OSError: it can't be written.
    """
    unit = hours_word(config.resources)
    rows = trial_rows(state, config.resources, dev_s)
    sections = [
        Section("", [*_header(config, state, rows, found, unit)]),
        Section("Finalists", [*_finalists(found.verdict, found.test)] if found.verdict else []),
        Section("What the winner gets wrong", [found.diagnosis] if found.diagnosis else []),
        Section("The search over time", [*search.progress(state, config, unit)]),
        Section("Learning curves", [*search.curves(state, found.verdict)]),
        Section("How winner and baseline learned", [*search.learned(config, state, found.verdict)]),
        Section("The searched settings", [*search.searched(config, state)]),
        Section("WER against cost and speed", [*search.pareto(rows, unit)]),
        Section("Pruning", [*search.pruning(state, found.stopped)]),
        Section("Where the hours went", [*search.hours(config, state, unit)]),
        Section("Diverged and failed", [*search.failed(state)]),
        Section("Trials", [*_trials(state, rows, found.verdict, unit)]),
    ]
    page = render(
        "report.html", _TEMPLATES, OF_DIAGNOSIS, title=f"Sweep {state.name}", live=live, plotly=get_plotlyjs(),
        sections=[one for one in sections if one.parts],
    )  # fmt: skip
    write_whole(folder / REPORT_FILE, page)
    return folder / REPORT_FILE


def _header(config: SweepConfig, state: State, rows: Sequence[TrialRow], found: Findings, unit: str) -> Iterator[Part]:
    verdict = found.verdict
    lead, *notes = verdict.sentences() if verdict else [*filter(None, [found.headline]), *_without_finalists(state)]
    yield Text(lead, "lead")
    if config.finalists.soup and state.soup and (verdict or found.headline):
        notes.append(state.soup["sentence"])
    notes += filter(None, [found.with_lm, found.growth])
    yield from (Text(note, "note") for note in notes)
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
    yield Table((), [[name, value] for name, value in facts.items() if value])


def _without_finalists(state: State) -> list[str]:
    best, base = state.best(), state.baseline()
    if best is None or best.best is None:
        return ["no trial has been scored yet"]
    line = f"lowest dev WER {best.id} {best.best['wer']:.3f}, on one seed and without finalists"
    if base is not None and base.best and base is not best:
        line += f"; baseline {base.best['wer']:.3f}" + ("" if base.state == "finished" else ", which is not at its end")
    return [line]


def _finalists(verdict: Verdict, test: Mapping[str, Mapping[str, float]]) -> Iterator[Part]:
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
    yield Table(columns, lines, "The best settings and the baseline, trained again on fresh seeds.", classes)
    on_test = verdict.on_test
    if on_test and on_test.difference:
        against = _against(verdict, "the baseline", on_test.difference, on_test.relative)
        yield Text(f"On test, {against} Test took no part in the search; dev chose the winner.")
    second = None if verdict.to_runner_up == verdict.to_baseline else verdict.to_runner_up
    for other, difference, relative in (
        ("the baseline", verdict.to_baseline, verdict.relative), ("the runner-up", second, None),
    ):  # fmt: skip
        if difference:
            yield Text(f"On dev, {_against(verdict, other, difference, relative)}")
    caption = "Squares are means over seeds, ticks single seeds, and the dashed line is the baseline."
    rates = "; ".join(f"{s.setting} {s.wer:.3f} {in_brackets(s.low, s.high)}" for s in verdict.standings)
    yield Chart(charts.forest(verdict), f"Dev WER of the finalists with 95 % intervals: {rates}.", caption)


def _against(verdict: Verdict, other: str, difference: Difference, relative: float | None) -> str:
    share = "" if relative is None else f", {abs(100 * relative):.0f} % {'fewer' if relative <= 0 else 'more'} errors"
    return f"{verdict.winner} against {other}, {difference.other}: {difference}{share}."


def _trials(state: State, rows: Sequence[TrialRow], verdict: Verdict | None, unit: str) -> Iterator[Part]:
    lead = search.lead_of(state, verdict)
    lines, classes = [], []
    for row in rows:
        trial, scores = row.trial, row.trial.best or {}
        fronts = [name for name, on in (("hours", row.on_hours), ("speed", row.on_speed)) if on]
        lines.append([
            trial.id, f"{trial.source} of {trial.of}" if trial.of else trial.source, trial.state,
            str(max(trial.last_step, 0)), *(_number(scores.get(name)) for name in ("wer", "cer", "loss")),
            f"{trial.spent_s:,.0f}", f"{row.hours:.3f}", _number(row.real_time_factor, 4), ", ".join(fronts),
            search.why(trial), search.settings_of(trial),
        ])  # fmt: skip
        classes.append("lead" if trial.id == lead else "baseline" if trial.source == "baseline" else "")
    columns = (
        "trial", "source", "state", "#steps", "#WER", "#CER", "#loss", "#seconds", f"#{unit}", "#real-time factor",
        "Pareto front", "reason", "*settings",
    )  # fmt: skip
    if lines:
        caption = "By dev WER of the best checkpoint; CER and loss are that checkpoint's. Finalists come last."
        yield Table(columns, lines, caption, classes)


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}" if math.isfinite(value) else str(value)
