"""The report's sections on the search: its course, its curves, its settings, its rungs and its hours.

In: the ledger's state, the settings, and the verdict if there is one. Out: paragraphs, tables and charts for `page`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hausa_asr.html import Table
from hausa_asr.settings.sweep import SweepConfig
from sweeps.pruning.rule import FIGURES
from sweeps.record.state import State
from sweeps.record.trial import TrialRecord
from sweeps.report import charts
from sweeps.report import searched as settings_charts
from sweeps.report.charts import Chart
from sweeps.report.figures import TrialRow, rung_rows
from sweeps.report.parts import Part, Text
from sweeps.report.progress import best_so_far, none_stopped, stock_asha, where_hours_went
from sweeps.sampling.export import study_of_finished
from sweeps.verdict import learning
from sweeps.verdict.verdict import Verdict
from sweeps.wording import in_brackets, many, short


def progress(state: State, config: SweepConfig, unit: str) -> Iterator[Part]:
    ours = best_so_far(state, config.resources)
    if not ours:
        return
    without, stock = none_stopped(state, config.resources), stock_asha(state, config.resources)
    last = ours[-1]
    yield Chart(
        charts.lowest_over_hours(ours, without, stock, unit),
        f"The lowest dev WER of the search over {unit}: {last.trial} comes to {last.wer:.3f} after "
        f"{ours[-2].hours:.3g}, of {last.hours:.3g} in all; with none of these trials stopped it would have taken "
        f"{without[-2].hours:.3g}, and stock ASHA would have come to {stock[-1].wer:.3f} after {stock[-2].hours:.3g} "
        f"of {stock[-1].hours:.3g}.",
        f"By the {unit} of all trials so far. Dashed: the same trials in the same order, had each been trained to its "
        "end. Dotted: had Ray Tune's ASHA stopped them by WER, half of them at 0.2, 0.4 and 0.8 of the length. What "
        "a trial that was stopped here would have come to is not known, so it counts with the lowest WER it had.",
    )


def curves(state: State, verdict: Verdict | None) -> Iterator[Part]:
    drawn, reported = len(charts.chosen_curves(state)), sum(bool(trial.reports) for trial in state.searched)
    if not drawn:
        return
    of_all = (
        f"{drawn:,} of {reported:,} trials are drawn, the best of them and a choice of the others. "
        if drawn == charts.MOST_CURVES < reported
        else ""
    )
    lead = lead_of(state, verdict)
    best = state.trials[lead].best if lead else None
    ends = f" {lead} comes to a WER of {best['wer']:.3f}." if best else ""
    yield Chart(
        charts.curves(state, lead, "winner" if verdict else "lowest WER"),
        f"Dev WER and eval loss of {drawn} trials over the seconds of audio trained on, with {len(state.marks)} rungs."
        + ends,
        of_all + "WER stays near 1 until a trial has left the CTC plateau; the loss falls before that. At the turning "
        "point WER is below 0.97 for the first time in two evaluations in a row. Click on a name to hide or show its "
        "curves; point at one to see its settings.",
    )


def learned(config: SweepConfig, state: State, verdict: Verdict | None) -> Iterator[Part]:
    lead, base = lead_of(state, verdict), state.baseline()
    both = {lead: "winner" if verdict else "lowest WER", base.id if base else "": "baseline"}
    for name, what in both.items():
        sentences = learning.learned(config, state.trials[name]) if name else []
        if sentences:
            yield Text(f"{what[:1].upper()}{what[1:]}, {name}: " + " ".join(sentences))


def searched(config: SweepConfig, state: State) -> Iterator[Part]:
    study = study_of_finished(state, config)
    settings = settings_charts.settings_of(study)
    if not settings:
        return
    important = settings_charts.importances(study, settings)
    finished = sum(trial.state == "finished" for trial in state.searched)
    if important:
        first = important[0]
        yield Chart(
            settings_charts.importance_chart(important),
            f"Importance of {len(important)} settings; the first is {first.setting}, {first.share:.2f} "
            f"{in_brackets(first.low, first.high)}.",
            f"How much each setting matters among the {finished:,} trials that were trained to their end, by "
            "PED-ANOVA, with 95 % intervals over draws of these trials. Those that were stopped are not in it.",
        )
        settings = [one.setting for one in important]
    else:
        yield Text(
            f"Which setting matters most is not shown: with only {many(finished, 'finished trial')} (fewer than "
            f"{settings_charts.LEAST_TRIALS}) it would mostly be chance.",
            "note",
        )
    shown = settings[: settings_charts.MOST_SETTINGS]
    which = "" if len(shown) == len(settings) else f" Not shown: {', '.join(settings[len(shown) :])}."
    if alike := [name for name in config.space if name not in settings]:
        which += f" The same in all: {', '.join(alike)}."
    yield Chart(
        settings_charts.parallel(study, shown),
        f"Each finished trial as a line through {', '.join(shown)} and its dev WER.",
        f"Each line is a finished trial. Drag along an axis to keep the trials of that range.{which}",
    )
    for number, figure in enumerate(settings_charts.slices(study, shown)):
        row = shown[settings_charts.ROW * number :][: settings_charts.ROW]
        yield Chart(figure, f"Dev WER of the finished trials over {', '.join(row)}.", "")


def pareto(rows: Sequence[TrialRow], unit: str) -> Iterator[Part]:
    on_hours = [row.trial.id for row in rows if row.on_hours]
    on_speed = [row.trial.id for row in rows if row.on_speed]
    if not on_hours:
        return
    on_fronts = f"On the front of WER against {unit}: {', '.join(on_hours)}."
    if on_speed:
        on_fronts += f" On that against real-time factor: {', '.join(on_speed)}."
    yield Chart(
        charts.fronts(rows, unit),
        f"Dev WER of each trial against its {unit} and its real-time factor, with both Pareto fronts. {on_fronts}",
        f"{on_fronts} No other trial has a lower WER at the same cost or less. The real-time factor was measured while "
        "the sweep scored dev, other trials beside it: small differences say nothing.",
    )


def pruning(state: State, stopped: str) -> Iterator[Part]:
    tallies = rung_rows(state)
    if tallies:
        lines = [
            [
                str(number), f"{one.at_s:,.0f}", str(one.ranked), str(one.ranked - sum(one.stopped.values())),
                str(sum(one.stopped.values())), ", ".join(FIGURES[name] for name in sorted(one.stopped)),
            ]
            for number, one in enumerate(tallies, start=1)
        ]  # fmt: skip
        went = "; ".join(f"rung {line[0]} ranked {line[2]} and stopped {line[4]}" for line in lines)
        yield Chart(charts.survival(tallies), f"Trials at each rung: {went}.", "")
        columns = ("rung", "#seconds of audio", "#ranked", "#went on", "#stopped", "ranked by")
        yield Table(columns, lines, "How many trials have stopped or wait at which rung, and what they were ranked by.")
    else:
        yield Text("This sweep has no rungs: every trial ran to its end.")
    if stopped:
        yield Text(f"Stopped: {stopped}.")
    if state.marks:
        yield Text("What pruning would have done to the trials that ran to their end:")
        yield Text(f"python -m sweeps.replay --sweep {state.name}", "code")


def hours(config: SweepConfig, state: State, unit: str) -> Iterator[Part]:
    shares = where_hours_went(state, config.resources)
    if shares:
        words = "; ".join(f"{one.name} {one.training + one.scoring:.3g}" for one in shares)
        yield Chart(charts.hours(shares, unit), f"{unit} by how trials ended: {words}.", "")


def failed(state: State) -> Iterator[Part]:
    failed = [trial for trial in state.trials.values() if trial.state == "failed"]
    if failed:
        lines = [[t.id, why(t), f"{t.seen_s:,.0f}", settings_of(t)] for t in failed]
        yield Table(("trial", "reason", "#at seconds of audio", "*settings"), lines)


def lead_of(state: State, verdict: Verdict | None) -> str:
    """The trial that stands out: the winner, or the lowest dev WER where no finalists ran; "" before that."""
    best = state.best()
    return verdict.winner if verdict else best.id if best else ""


def why(trial: TrialRecord) -> str:
    return f"{trial.reason}: {trial.detail}" if trial.detail else trial.reason


def settings_of(trial: TrialRecord) -> str:
    return ", ".join(f"{name} {short(value)}" for name, value in trial.settings.items())
