"""An average of runs replaces the winner's model only if it is clearly better on dev, and then all say that it has."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hausa_asr.cli import app
from hausa_asr.export.best_model import best_model
from hausa_asr.model.evaluate import evaluate
from hausa_asr.model.wav2vec2 import load_model
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.tracking.tracker import Tracker
from hausa_asr.training import checkpoint, soup
from hausa_asr.training.finetune import Data
from helpers.events import report
from helpers.fine_tunes import RECIPE, run
from helpers.soups import Heard, displaced
from helpers.speech import ToneSplit
from sweeps.on_ray.scoring import scored
from sweeps.record.ledger import Ledger, read_state
from sweeps.record.trial import TrialRecord
from sweeps.verdict.publish import publish
from sweeps.verdict.result import Conclusion, conclude
from sweeps.verdict.soup import Averaged, Batch, Models, candidates, make


class Sweep:
    """A sweep whose trials have ended, with real models, a real ledger and a real MLflow."""

    def __init__(self, folder: Path, *changes: str) -> None:
        self.config: SweepConfig = load(
            None, [*changes, f"storage={folder}", f"mlflow.uri=sqlite:///{folder}/m.db"], environment={}
        )
        (folder / "s").mkdir()
        self.ledger = Ledger(folder / "s")
        self.tracker = Tracker(self.config.mlflow.uri, self.config.mlflow.experiment)
        self.ledger.append("sweep", name="s", rungs=[])
        self.parent = self.tracker.start_sweep("s", {}, {})
        self.ledger.append("mirrored", run_id=self.parent)

    def add(self, name: str, wer: float, source: str = "search", **settings: Any) -> TrialRecord:
        """A trial that has finished."""
        of = name[:4] if "-" in name else ""
        self.ledger.append("proposed", trial=name, settings=settings, source="finalist" if of else source, of=of)
        run_id = self.tracker.start_trial(self.parent, "s", name, settings, {"source": source})
        self.ledger.append("tracked", trial=name, run_id=run_id)
        self.ledger.append("reported", trial=name, **report(40, wer))
        self.tracker.end_trial(run_id, "finished", "", {"best_wer": wer, "best_cer": wer / 2, "best_loss": 2.0})
        self.ledger.append("ended", trial=name, state="finished", reason="")
        return self.ledger.state.trials[name]

    def place(self, name: str, step: int = 40) -> Path:
        """Where a trial's best checkpoint is to be."""
        folder = self.ledger.trial_folder(name) / f"step-{step:06d}"
        folder.parent.mkdir(parents=True)
        return folder


class InProcess:
    """Real averages and scores without a cluster; counts what was scored on test."""

    def __init__(self, middle: Path) -> None:
        self.splits = {"dev": Heard(24, middle), "test": Heard(24, middle, seed=2)}
        self.on_test: list[str] = []

    def average(self, batches: list[Batch]) -> list[Averaged]:
        made = [soup.greedy(batch.checkpoints, self.splits["dev"]) for batch in batches]
        for one, batch in zip(made, batches, strict=True):
            if len(one.members) > 1:
                soup.write(one, batch.out)
        return [
            Averaged([batch.checkpoints.index(member) for member in one.members], scored(one.soup))
            for one, batch in zip(made, batches, strict=True)
        ]

    def score(self, checkpoints: list[Path], splits: list[str]) -> list[dict[str, Any]]:
        self.on_test += [path.parent.name for path in checkpoints if "test" in splits]
        models = [checkpoint.load(path) for path in checkpoints]
        return [{split: scored(evaluate(*model, self.splits[split])) for split in splits} for model in models]

    def conclude(self, sweep: Sweep) -> Conclusion:
        prepared: Any = SimpleNamespace(splits=self.splits, report={}, seconds={"train": 60.0})
        return conclude(sweep.config, sweep.ledger, prepared, self.score, self.average)


def resumed(sweep: Sweep) -> Any:
    """The same sweep after a resume, its ledger read from disk."""
    ledger = Ledger(sweep.ledger.folder)
    ledger.append("opened", slots=1)
    return SimpleNamespace(config=sweep.config, ledger=ledger)


@pytest.fixture(scope="module")
def middle(tmp_path_factory: pytest.TempPathFactory, layer_norm_base: Path) -> Path:
    """A model that has learned next to nothing, and so writes much."""
    folder = tmp_path_factory.mktemp("middle")
    recipe = dataclasses.replace(RECIPE, lr_peak=1e-7, length_s=60)
    run(recipe, Data(ToneSplit(8, 0), ToneSplit(4, 1)), layer_norm_base, folder)
    best = checkpoint.best(folder)
    assert best is not None
    return best.folder


def test_an_average_that_is_clearly_better_is_exported_and_named_everywhere(tmp_path: Path, middle: Path) -> None:
    sweep, models = Sweep(tmp_path, "finalists={k: 0, soup: true}"), InProcess(middle)
    for name, by, wer in (("t000", 3.0, 0.9), ("t001", 0.05, 0.4), ("t002", -0.05, 0.5)):
        sweep.add(name, wer, "baseline" if name == "t000" else "search", lr_peak=wer)
        displaced(middle, sweep.place(name), by, wer)
    conclusion = models.conclude(sweep)
    made = conclusion.soup
    assert made is not None and made.accepted
    assert (made.members, made.single) == (["t001", "t002"], "t001")
    own = {name: evaluate(*checkpoint.load(sweep.ledger.best_checkpoint(t)), models.splits["test"])  # type: ignore[arg-type]
           for name, t in sweep.ledger.state.trials.items()}  # fmt: skip
    assert made.dev["wer"] < 0.1 and made.test is not None and made.on_test is not None
    assert made.on_test.wer == pytest.approx(made.test["wer"] - own["t001"].wer)
    assert made.sentence().startswith("exported is a soup, the average of t001 and t002: dev WER 0.0")
    assert "lower [" in made.sentence() and "than t001; test WER 0.0" in made.sentence()

    exported, processor = load_model(sweep.ledger.folder / "export")
    assert evaluate(exported, processor, models.splits["test"]).wer == made.test["wer"]
    card = (sweep.ledger.folder / "export/README.md").read_text(encoding="utf-8")
    assert 'the mean of the weights (a "model soup") of `t001`, `t002`' in card
    assert "The settings are those of `t001`" in card
    assert f"| WER | {made.dev['wer']:.4f} | {made.test['wer']:.4f} |" in card
    assert conclusion.result["soup"]["members"] == ["t001", "t002"]
    assert conclusion.result["best"]["id"] == "t001", "the setting that won stays the winner"
    state = read_state(sweep.ledger.folder)
    assert state.soup is not None and state.soup["sentence"] == made.sentence()

    assert publish(sweep.tracker, sweep.ledger, conclusion) == ""
    [parent] = sweep.tracker.sweeps()
    assert parent.tags["soup"] == "t001, t002"
    assert parent.metrics["soup_test_wer"] == made.test["wer"]
    found = best_model(sweep.tracker.uri, sweep.tracker.experiment, sweep="s", out=tmp_path / "out")
    assert (found.soup, found.source) == (("t001", "t002"), "artifact")
    assert (found.wer, found.test_wer) == (made.dev["wer"], made.test["wer"])
    assert load_model(found.out)[0].lm_head.weight.equal(exported.lm_head.weight)
    place = ["--uri", sweep.tracker.uri, "--experiment", sweep.tracker.experiment, "--out", str(tmp_path / "again")]
    printed = CliRunner().invoke(app, ["best-model", "--sweep", "s", *place]).output
    assert "model is the average of t001, t002; WER and CER are its own" in printed

    scored_before = list(models.on_test)
    assert sorted(scored_before) == ["soup", "t000", "t001"]
    again = models.conclude(resumed(sweep))
    assert again.soup == made and models.on_test == scored_before, "test is scored once"
    assert load_model(sweep.ledger.folder / "export")[0].lm_head.weight.equal(exported.lm_head.weight)


def test_without_a_clear_gain_the_winners_own_model_is_exported(tmp_path: Path, middle: Path) -> None:
    sweep, models = Sweep(tmp_path, "finalists={k: 0, soup: true}"), InProcess(middle)
    for name, by, wer in (("t000", 3.0, 0.9), ("t001", 0.0, 0.1)):
        sweep.add(name, wer, "baseline" if name == "t000" else "search")
        displaced(middle, sweep.place(name), by, wer)
    conclusion = models.conclude(sweep)
    made = conclusion.soup
    assert made is not None and not made.accepted and made.members == [] and made.test is None
    assert made.sentence() == "soup: no average of the 2 runs tried is better on dev than its best"
    assert sorted(models.on_test) == ["t000", "t001"], "test is not scored for an average that is not exported"
    assert "model soup" not in (sweep.ledger.folder / "export/README.md").read_text(encoding="utf-8")
    assert list((sweep.ledger.folder / "soup").iterdir()) == []
    assert publish(sweep.tracker, sweep.ledger, conclusion) == ""
    assert best_model(sweep.tracker.uri, sweep.tracker.experiment, sweep="s", out=tmp_path / "out").soup == ()


def test_a_gain_that_may_be_luck_is_said_and_not_taken(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "finalists={k: 0, soup: true}")
    for name in ("t000", "t001", "t002"):
        sweep.add(name, 0.3)
        sweep.place(name).mkdir()
        (sweep.ledger.trial_folder(name) / "step-000040/base.json").touch()

    def scores(wrong: int) -> dict[str, Any]:
        errors = [1] * wrong + [0] * (50 - wrong)
        rates = {"wer": wrong / 500, "cer": 0.0, "wer_folded": 0.0, "cer_folded": 0.0}
        return {"errors": errors, "words": [10] * 50, "speakers": [""] * 50, "rates": rates}

    models = Models(
        lambda batches: [Averaged([0, 2], scores(9)) for batch in batches if not batch.out.mkdir()],
        lambda checkpoints, splits: [{split: scores(10) for split in splits} for _ in checkpoints],
    )
    made = make(sweep.config, sweep.ledger, sweep.ledger.state.trials["t001"], models, scores(10))
    assert made is not None and made.gain is not None
    assert made.gain.wer == pytest.approx(-0.002) and not made.accepted
    assert made.sentence() == (
        f"soup of t000 and t002: dev WER 0.018, 0.002 lower [0.000, {-made.gain.low:.3f}] than t001, which is not "
        "clear, so t001 is exported"
    )
    assert list((sweep.ledger.folder / "soup").iterdir()) == []
    assert type(made).from_json(sweep.ledger.state.soup or {}) == made


def test_only_finished_runs_of_one_head_are_averaged(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "finalists={k: 2, seeds: 2, soup: true}")
    runs = {"t000": {}, "t001": {}, "t002": {"adapter_dim": 8}, "t003": {}, "t004": {}, "t000-s1": {"seed": 1},
            "t001-s1": {"seed": 1}, "t000-s2": {"seed": 2}}  # fmt: skip
    for number, (name, settings) in enumerate(runs.items()):
        sweep.add(name, 0.9 - 0.1 * number, **settings)
        sweep.place(name).mkdir()
        if name != "t003":
            (sweep.ledger.trial_folder(name) / "step-000040/base.json").touch()
    sweep.ledger.append("ended", trial="t004", state="pruned", reason="")
    groups = [[run.id for run in group] for group in candidates(sweep.config, sweep.ledger)]
    assert groups == [["t001", "t000"], ["t001-s1", "t000-s1"]]
    assert np.all([len(group) > 1 for group in groups])
