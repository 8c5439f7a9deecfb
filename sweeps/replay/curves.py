"""Read complete learning curves for replays, from a file of recorded ones or from a finished sweep in MLflow.

In: the JSONL of `benchmarks/record_curves.py`, or the trials of a sweep. Out: `Curve`s, and per replay a draw of them
in a random order. `sweeps.replay` calls it.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hausa_asr.errors import UserError
from hausa_asr.recipe import FinetuneConfig
from sweeps.pruning.rule import Point
from sweeps.pruning.rungs import free_s, ready_s
from sweeps.replay.places import places

if TYPE_CHECKING:
    from hausa_asr.tracking.tracker import Tracker, TrialRun

BASELINE = "baseline"
FEWEST = 5
"""With fewer finished trials, a replay shows nothing."""
METRICS = ("seen_s", "loss", "wer", "cer", "audio_s_per_s", "eval_runtime_s")


@dataclass(frozen=True)
class Curve:
    """One fine-tune that ran to its end.

    Attributes:
        name: of its setting; the same for all seeds of it.
        source: `baseline` for the published recipe, which is tried first.
        length_s: its full length, in seconds of audio.
        ready_s: after this many seconds of audio it can be compared with others.
        frozen_s: for the first this many seconds of audio only its head learns.
        free_s: after this many seconds of audio its whole transformer learns.
        wer_se: standard error of its best WER over the utterances of dev; 0 if it is not known.
        points: its evaluations, by rising `seen_s`.
        train_s: seconds spent training up to each point, evaluations left out.
        eval_s: seconds that one evaluation takes.
        settings: what was searched, by name; empty if it is not known.
        place: these as numbers, see `places`.
    """

    name: str
    source: str
    length_s: float
    ready_s: float
    frozen_s: float
    free_s: float
    wer_se: float
    points: tuple[Point, ...]
    train_s: tuple[float, ...]
    eval_s: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    place: tuple[float, ...] = ()


def phases(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """`length_s`, `ready_s`, `frozen_s` and `free_s` of a `Curve`, from a recipe as recorded (MLflow: as text)."""
    fine_tune = FinetuneConfig(
        length_s=float(recipe["length_s"]),
        warmup_fraction=float(recipe["warmup_fraction"]),
        freeze_transformer_fraction=float(recipe["freeze_transformer_fraction"]),
        unfreeze=recipe["unfreeze"],
    )
    return {
        "length_s": fine_tune.length_s,
        "ready_s": ready_s(fine_tune),
        "frozen_s": fine_tune.freeze_transformer_fraction * fine_tune.length_s,
        "free_s": free_s(fine_tune),
    }


def read(path: Path, first: int = 0, last: int | None = None) -> list[list[Curve]]:
    """Read the recorded curves, by setting; a setting that was trained on several seeds has several.

    Shorter schedules (any `kind` but full) are left out, and so is a last line that is cut off, as while curves are
    being recorded.

    Args:
        path: the JSONL file that `benchmarks/record_curves.py` writes.
        first, last: take only the settings with these numbers, and the baseline. A rule that was chosen on some
            settings is reported on others.

    Raises:
        UserError: the file cannot be read, holds something else, or has too few settings.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(
            f"The recorded curves cannot be read: {error.strerror}.",
            where=path,
            fix="Record some with python benchmarks/record_curves.py.",
        ) from None
    by_setting: dict[str, list[Curve]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            recorded = json.loads(line)
            if recorded.get("kind", "full") != "full":
                continue
            curve = _recorded(recorded)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            if number == len(lines):
                break
            fault = f"{type(error).__name__}: {error}"
            raise UserError(f"This is no recorded curve ({fault}).", where=f"{path}, line {number}") from None
        if curve.source == BASELINE or first <= int(curve.name) <= (math.inf if last is None else last):
            by_setting.setdefault(curve.name, []).append(curve)
    if len(by_setting) < FEWEST:
        raise UserError(f"{len(by_setting)} settings are too few for a replay.", where=path, fix="Record more of them.")
    return _placed(_baseline_first(list(by_setting.values())))


def _placed(settings: list[list[Curve]]) -> list[list[Curve]]:
    """Give all curves their settings as numbers."""
    found = places([seeds[0].settings for seeds in settings])
    return [[replace(curve, place=place) for curve in seeds] for seeds, place in zip(settings, found, strict=True)]


def _recorded(line: Mapping[str, Any]) -> Curve:
    points = line["points"]
    columns = zip(points["seen_s"], points["loss"], points["wer"], points["cer"], strict=True)
    return Curve(
        **phases(line["recipe"]),
        name=str(line["number"]),
        source=line["source"],
        wer_se=float(line["wer_se"]),
        points=tuple(Point(*map(float, row)) for row in columns),
        train_s=tuple(map(float, points["train_s"])),
        eval_s=float(points["eval_s"][-1]) / len(points["eval_s"]),
        settings=line.get("settings", {}),
    )


def steady(settings: Sequence[Sequence[Curve]]) -> list[list[Curve]]:
    """Give all curves the same pace, as on a machine that does nothing else.

    The time of a recorded curve depends on what else the machine did. So the training between two evaluations gets the
    median pace, over all curves, of its phase (frozen, being freed layer by layer, or free), and every evaluation gets
    the median time of all evaluations.
    """
    curves = [curve for seeds in settings for curve in seeds]
    paces: dict[int, list[float]] = defaultdict(list)
    for curve in curves:
        for (audio_s, phase), took_s in zip(_stretches(curve), np.diff([0.0, *curve.train_s]), strict=True):
            paces[phase].append(float(took_s) / audio_s)
    pace = {phase: statistics.median(ratios) for phase, ratios in paces.items()}
    eval_s = statistics.median(curve.eval_s for curve in curves)

    def at_pace(curve: Curve) -> Curve:
        train_s = np.cumsum([audio_s * pace[phase] for audio_s, phase in _stretches(curve)])
        return replace(curve, train_s=tuple(train_s.tolist()), eval_s=eval_s)

    return [[at_pace(curve) for curve in seeds] for seeds in settings]


def _stretches(curve: Curve) -> list[tuple[float, int]]:
    """Per point, the seconds of audio since the one before it, and the phase then: 0 frozen, 1 being freed, 2 free."""
    ends = [point.seen_s for point in curve.points]
    pairs = zip([0.0, *ends], ends, strict=False)
    return [(b - a, ((a + b) / 2 >= curve.frozen_s) + ((a + b) / 2 >= curve.free_s)) for a, b in pairs]


def longest_s(settings: Sequence[Sequence[Curve]]) -> float:
    """The full length of the longest curve, in seconds of audio."""
    return max(curve.length_s for seeds in settings for curve in seeds)


def _baseline_first(settings: list[list[Curve]]) -> list[list[Curve]]:
    return sorted(settings, key=lambda seeds: seeds[0].source != BASELINE)


def draw(settings: Sequence[Sequence[Curve]], seed: int, replay: int, trials: int | None = None) -> list[Curve]:
    """Draw the curves of one replay, in the order in which its search proposes them: the baseline, then at random.

    If a setting was trained on several seeds, one of them is drawn: so replays differ by the noise of training too.

    Args:
        settings: the recorded curves.
        seed, replay: of the draw.
        trials: how many settings the search tries, the baseline among them; None for all.
    """
    rng = np.random.default_rng((seed, replay))
    chosen = [seeds[int(rng.integers(len(seeds)))] for seeds in settings]
    first = [curve for curve in chosen if curve.source == BASELINE]
    rest = [curve for curve in chosen if curve.source != BASELINE]
    return (first + [rest[place] for place in rng.permutation(len(rest))])[:trials]


def of_sweep(tracker: Tracker, sweep: str) -> tuple[list[Curve], dict[str, int]]:
    """Read the complete curves of a sweep, in the order in which its trials began, and count what was left out.

    Finalists are second runs of settings that are in the search already, so they are not counted.

    Args:
        tracker: an open experiment.
        sweep: the run id or the name of the sweep.

    Returns:
        The curves, and how many trials were left out, by state: the rest of a pruned trial's curve is not known.

    Raises:
        UserError: the sweep is not in MLflow, or fewer than `FEWEST` of its trials ran to their end.
    """
    trials = [trial for trial in tracker.trials(sweep) if trial.tags.get("source") != "finalist"]
    left_out = Counter(trial.state for trial in trials if trial.state != "finished")
    curves = [_logged(tracker, trial) for trial in trials if trial.state == "finished"]
    if len(curves) < FEWEST:
        raise UserError(
            f"{len(curves)} of {len(trials)} trials ran to their end; a replay needs {FEWEST} or more.",
            where=f"sweep {sweep}",
            fix="Name a sweep that ran without pruning (--set pruning.rule=none), or one of more trials.",
        )
    return curves, dict(left_out)


def _logged(tracker: Tracker, trial: TrialRun) -> Curve:
    history = {name: dict(values) for name, values in tracker.history(trial.run_id, METRICS).items()}
    # Figures that were not finite are not in MLflow, so a step may lack some.
    steps = sorted(set.intersection(*(set(history.get(name, {})) for name in METRICS)))
    if not steps:
        what = "A finished trial has no evaluation with all its figures."
        raise UserError(what, where=trial.trial, fix="Name a sweep of this version.")
    column = {name: [history[name][step] for step in steps] for name in METRICS}
    # Where an evaluation is missing, its stretch is trained at the speed of the next one.
    trained = np.cumsum(np.diff([0.0, *column["seen_s"]]) / np.array(column["audio_s_per_s"]))
    return Curve(
        name=trial.trial,
        source=trial.tags.get("source", ""),
        **phases(trial.params),
        wer_se=0.0,
        points=tuple(map(Point, column["seen_s"], column["loss"], column["wer"], column["cer"])),
        train_s=tuple(trained.tolist()),
        eval_s=float(np.mean(column["eval_runtime_s"])),
    )
