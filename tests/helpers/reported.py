"""Sweeps for the tests of reports, made from events as a driver writes them, and a verdict on their finalists."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from sweeps.pruning.rule import RankBy, Rule, Score
from sweeps.record.state import State
from sweeps.verdict.compare import RunScores
from sweeps.verdict.verdict import Verdict, verdict


class Sweep:
    """Feeds a state with the events of a sweep whose trials run one after another."""

    def __init__(self, marks: list[float], reduction: int = 2, rank_by: RankBy = "auto") -> None:
        self.state, self.now = State(), 1_000.0
        self.rule = Rule(marks, reduction, rank_by)
        self.write("sweep", name="demo", prepared="/data/demo", rungs=marks)
        self.write("opened", run_id="parent", slots=1)

    def write(self, event: str, **fields: Any) -> None:
        self.state.apply({"event": event, "time": self.now, **fields})

    def trial(
        self, name: str, curve: list[tuple[float, float]], source: str = "search", of: str = "",
        settings: dict[str, Any] | None = None, diverges: bool = False, eval_s: float = 2.4,
    ) -> None:  # fmt: skip
        """One trial by its (WER, loss) at each 300 s of audio; each takes 10 s."""
        self.write("proposed", trial=name, settings=settings or {"lr_peak": 1e-3}, source=source, of=of)
        self.write("started", trial=name)
        best: dict[str, float] = {}
        for step, (wer, loss) in enumerate(curve, start=1):
            self.now += 10
            metrics = {"wer": wer, "cer": wer / 3, "loss": loss, "eval_runtime_s": eval_s}
            if not best or wer < best["wer"]:
                best = {"step": step, "wer": wer, "cer": wer / 3, "loss": loss}
            last, seen_s = step == len(curve), 300.0 * step
            self.write(
                "reported", trial=name, step=step, updates=len(curve), seen_s=seen_s, metrics=metrics, best=best,
                last=last, diverged=diverges and last,
            )  # fmt: skip
            if of or last:
                continue
            for rung in self.rule.due(name, seen_s, 0.0):
                scored = Score(loss, wer, wer / 3, wer < 0.9)
                self.rule.record(rung, name, scored)
                ranking = self.rule.rank(rung, name)
                passed = ranking.passed or source == "baseline"
                decision = {**asdict(ranking), "passed": passed, "scored": asdict(scored)}
                self.write("ranked", trial=name, rung=rung, seen_s=seen_s, **decision)
                if not passed:
                    reason = f"{ranking.metric} {ranking.value:.4f} is number {ranking.place} of {ranking.cohort}"
                    self.write("ended", trial=name, state="pruned", reason=reason)
                    return
        if diverges:
            self.write("ended", trial=name, state="failed", reason="diverged", detail="eval loss is nan")
        else:
            self.write("ended", trial=name, state="finished", reason="")


def a_curve(final: float, turns_at: int, length: int = 15) -> list[tuple[float, float]]:
    """WER near 1 up to the turning point, then down to `final`; the loss falls before."""
    points = []
    for step in range(1, length + 1):
        behind = max(0, step - turns_at)
        points.append(
            (final + (1.03 - final) * math.exp(-behind / 2.0), final / 2 + 12 * math.exp(-2 * step / turns_at))
        )
    return points


def a_sweep(trials: int) -> Sweep:
    """A search of `trials` trials, some of them diverged, then runs of two finalists and of the baseline."""
    draw = np.random.default_rng(0)
    sweep = Sweep([1_350.0, 2_700.0])
    sweep.trial("t000", a_curve(0.18, 6), "baseline", settings={"lr_peak": 7.5e-4, "schedule": "linear"})
    for number in range(1, trials):
        lr = float(10 ** draw.uniform(-3.5, -2))
        off = abs(math.log10(lr) + 2.8)
        settings = {
            "lr_peak": lr, "warmup_fraction": float(draw.uniform(0.02, 0.3)), "schedule": "tri_stage",
            "mask_time_prob": float(draw.uniform(0, 0.5)), "mask_time_length": 5,
        }  # fmt: skip
        curve = a_curve(0.1 + 0.15 * off + 0.02 * draw.random(), 2 + int(8 * off + 2 * draw.random()))
        if number % 10 == 7:
            sweep.trial(f"t{number:03d}", [*curve[:2], (1.0, math.nan)], settings=settings, diverges=True)
        else:
            seconds = float(draw.normal(2.4, 0.2))
            sweep.trial(f"t{number:03d}", curve, settings=settings, eval_s=seconds)
    finalists = [*(trial.id for trial in sweep.state.ranking() if trial.id != "t000")][:2]
    for seed in (1, 2, 3):
        for name in ["t000", *finalists]:
            sweep.trial(f"{name}-s{seed}", a_curve(0.12, 4), "finalist", of=name, settings={"seed": seed})
    return sweep


def a_verdict(state: State) -> Verdict:
    draw = np.random.default_rng(0)
    words = draw.integers(4, 12, 200)
    models = []
    for trial in state.finalists:
        wer = draw.normal(0.18 if trial.of == "t000" else 0.11, 0.01)
        models.append(RunScores(trial.of, trial.id, trial.settings["seed"], draw.binomial(words, wer), words))
    return verdict(models, "t000", speakers=[f"s{number % 12}" for number in range(200)])
