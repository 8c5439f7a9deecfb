"""One finished sweep that several tests look at, and what it takes to compare with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from hausa_asr.decoding.ngram import estimate
from helpers.speech import ToneSplit
from helpers.whole_sweeps import (
    SETTINGS,
    Runs,
    _lowest,
    check_whole,
    environment,
    finish,
    gone,
    ledger_of,
    start,
    wait_for,
    workers_of,
)
from sweeps.pruning.rule import FIGURES
from sweeps.record.ledger import Ledger

WILD, HOT = "starting point wild", "starting point hot"
pytestmark = pytest.mark.timeout(600)  # longer than what its own waits add up to


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, audio: Path, layer_norm_base: Path) -> tuple[Path, str]:
    """One sweep with finalists, run once, that several tests look at. Two of its starting points must diverge."""
    folder = tmp_path_factory.mktemp("finished")
    path = folder / "tiny.yaml"
    path.write_text(SETTINGS.format(audio=audio, base=layer_norm_base, folder=folder))
    lm = folder / "mine.arpa"
    estimate([text.split() for text in ToneSplit.texts], 2, 1).write(lm)
    points = "starting_points={wild: {lr_peak: 1.0e+30, max_grad_norm: 0}, hot: {lr_peak: 1.0}}"
    process = start("--config", path, "--set", "name=one", "--set", points, "--set", "search.trials=6",
                    "--set", "finalists={k: 1, seeds: 2, soup: true, data_growth: true}",
                    "--set", f"finalists.language_model={lm}")  # fmt: skip
    output = finish(process)
    assert gone(process.pid) == []
    return folder, output


def test_a_sweep_ends_whole_and_says_what_it_found(finished: tuple[Path, str]) -> None:
    folder, output = finished
    result = check_whole(folder, "one", 6)
    assert f"best      {result['best']['id']}" in output
    assert "mlflow ui --backend-store-uri" in output
    said = "the chance that one of them would have had a lower dev WER" in output
    assert said == (result["chance_missed"] is not None), "said if a trial was stopped for good"
    assert said == ("the chance that one of them" in (folder / "runs/one/report.html").read_text())
    assert "raylet" not in output, "no wall of other processes' words"
    evaluations = sum(event["event"] == "reported" for event in ledger_of(folder / "runs/one"))
    assert len(output.splitlines()) < 50 + evaluations, "a line for each, and a few more"
    trials = folder / "runs/one/trials"
    assert "step 5 of" in (trials / "t000/train.log").read_text()
    assert not list(Path("/tmp").glob("hausa-asr-ray-*")) or all(
        Path(f"/proc/{p.name.split('-')[3]}").exists() for p in Path("/tmp").glob("hausa-asr-ray-*")
    )


def test_every_trial_is_in_mlflow_with_all_that_a_person_compares(finished: tuple[Path, str]) -> None:
    runs = Runs(finished[0])
    for run in runs.children:
        assert {"lr_peak", "mask_time_prob", "schedule", "batch_s"} <= set(run.data.params)
        name, trial = run.info.run_name, run.data.tags["trial"]
        assert name.startswith(trial) and (name == f"{trial} baseline" or "lr_peak=" in name), "it tells runs apart"
        if run.data.tags["source"] in (WILD, HOT):
            continue
        for metric in ("wer", "cer", "loss", "lr", "grad_norm", "samples_per_s", "audio_s_per_s", "eval_runtime_s"):
            assert runs.steps(run, metric)[0] == 5, metric
        assert Path(run.data.tags["checkpoint_uri"].removeprefix("file://")).is_dir()
        artifacts = {entry.path for entry in runs.client.list_artifacts(run.info.run_id)}
        assert {"settings.yaml", "samples.json"} <= artifacts
    parent = runs.parents[0]
    assert "best_model/model.safetensors" in {
        entry.path for entry in runs.client.list_artifacts(parent.info.run_id, "best_model")
    }


def test_finalists_name_the_winner_and_all_say_the_same(finished: tuple[Path, str]) -> None:
    folder, output = finished
    result = json.loads((folder / "runs/one/result.json").read_text())
    best, baseline = result["best"], result["baseline"]
    assert best["id"] != baseline["id"] == "t000" and best["seeds"] == baseline["seeds"] == 2
    runs = {trial["id"]: trial for trial in result["finalists"]}
    again = {f"{result['data_growth']['setting']}-s{seed}-d{share}" for seed in (1, 2) for share in (25, 50)}
    assert sorted(again.symmetric_difference(runs)) == sorted(
        f"{one}-s{seed}" for one in ("t000", _lowest(result)) for seed in (1, 2)
    )
    assert {trial["settings"]["seed"] for trial in runs.values()} == {1, 2}
    assert runs[best["run"]]["of"] == best["id"] == result["verdict"]["winner"]
    low, high = best["wer_interval"]
    assert low <= best["wer"] <= high
    tags = Runs(folder).parents[0].data.tags
    assert (tags["winner"], tags["winner_run"], tags["winner_seeds"]) == (best["id"], best["run"], "2")
    assert Path(tags["winner_checkpoint"]).parent == folder / "runs/one/trials" / best["run"]
    *_, dev, headline = output.splitlines()
    assert f"**{headline}**" in tags["mlflow.note.content"], "the page of the sweep's run opens with it"
    assert headline == tags["verdict"] and headline.startswith(f"winner {best['id']}  test WER {best['test_wer']:.3f}")
    assert f"baseline {baseline['test_wer']:.3f}" in headline
    assert dev.startswith("on dev, which chose it") and f"baseline {baseline['wer']:.3f}" in dev
    own = {name: trial["test_wer"] for name, trial in runs.items() if name not in again}
    assert best["test_wer"] == pytest.approx(sum(own[f"{best['id']}-s{seed}"] for seed in (1, 2)) / 2)
    in_mlflow = {run.data.tags["trial"]: run.data.metrics["test_wer"] for run in Runs(folder).children
                 if "finalist_of" in run.data.tags and run.data.tags["trial"] not in again}  # fmt: skip
    assert in_mlflow == pytest.approx(own), "each run has its own"


def test_what_more_data_would_give_is_told_in_all_places(finished: tuple[Path, str]) -> None:
    folder, output = finished
    growth = json.loads((folder / "runs/one/result.json").read_text())["data_growth"]
    assert growth["sentence"] in output.splitlines()
    assert growth["sentence"] in (folder / "runs/one/report.html").read_text()
    assert {share: len(wers) for share, wers in growth["wers"].items()} == {"0.25": 2, "0.5": 2, "1": 2}
    log = (folder / f"runs/one/trials/{growth['setting']}-s1-d25/train.log").read_text()
    assert '"train_share": 0.25' in log


def test_finalists_are_scored_with_a_language_model_too(finished: tuple[Path, str]) -> None:
    folder, output = finished
    result = json.loads((folder / "runs/one/result.json").read_text())
    found, best = result["language_model"], result["best"]
    whole = {f"{one}-s{seed}" for one in ("t000", best["id"]) for seed in (1, 2)}
    assert set(found["test_wer"]) == set(found["dev_wer"]) == whole
    winner = found["margin"]["winner"]
    own = [found["test_wer"][f"{best['id']}-s{seed}"] for seed in (1, 2)]
    assert (winner["setting"], winner["seeds"]) == (best["id"], 2) and winner["wer"] == pytest.approx(sum(own) / 2)
    assert found["sentence"].startswith(f"with a language model, {best['id']}  test WER {winner['wer']:.3f}")
    runs = Runs(folder)
    assert runs.parents[0].data.tags["verdict_with_lm"] == found["sentence"]
    for run in runs.children:
        if run.data.tags["trial"] in whole:
            assert run.data.metrics["test_wer_with_lm"] == found["test_wer"][run.data.tags["trial"]]
    assert found["sentence"] in output.splitlines()
    assert found["sentence"] in (folder / "runs/one/report.html").read_text()
    assert f" --with-lm {found['file']}\n" in output and f"best-model --sweep one --uri sqlite:///{folder}" in output
    assert json.loads(Path(f"{found['file']}.weights.json").read_text())["model"] == best["run"]


def test_an_average_of_runs_that_share_a_seed_was_tried_and_all_say_what_came_of_it(finished: tuple[Path, str]) -> None:
    folder, output = finished
    soup = json.loads((folder / "runs/one/result.json").read_text())["soup"]
    state = Ledger(folder / "runs/one").state
    assert state.soup == soup and soup["sentence"] in output.splitlines()
    assert soup["sentence"] in (folder / "runs/one/report.html").read_text().replace("&#x27;", "'")
    tried = {name.split("/")[0] for name in soup["candidates"]}
    whole = {run.id for run in state.finalists if "train_share" not in run.settings}
    assert whole < tried, "the two runs of each fresh seed"
    assert tried <= {trial.id for trial in state.trials.values() if trial.state == "finished"}
    tags = Runs(folder).parents[0].data.tags
    assert tags["soup"] == (", ".join(soup["members"]) if soup["accepted"] else "")
    assert (folder / "runs/one/soup/average").is_dir() == soup["accepted"]


def test_a_decision_can_be_asked_for(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    state = Ledger(folder / "runs/one").state
    lost = next(trial for trial in state.trials.values() if any(not one["passed"] for one in trial.decisions))
    said = finish(start("--explain", f"one/{lost.id}", "--set", f"storage={folder}/runs"))
    decision = next(one for one in lost.decisions if not one["passed"])
    assert f"{lost.id} of sweep one" in said
    assert f"ranked by {FIGURES[decision['metric']]} with {decision['cohort']} trials: number" in said
    assert f"{decision['value']:.4f}" in said and "paused" in said
    assert "t099" in finish(start("--explain", "t099", "--set", f"storage={folder}/runs"), code=2)


def test_optunas_own_tools_can_read_it(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = finished
    file = tmp_path / "study.db"
    said = finish(start("--export-study", file, "one", "--set", f"storage={folder}/runs"))
    assert f"6 trials in {file}" in said.replace("\n", "")
    study = optuna.load_study(study_name="one", storage=f"sqlite:///{file}")
    result = json.loads((folder / "runs/one/result.json").read_text())
    assert study.best_value == min(trial["wer"] for trial in result["trials"] if trial["state"] == "finished")


def test_what_finalists_get_wrong_is_in_mlflow_in_the_report_and_in_the_card(finished: tuple[Path, str]) -> None:
    folder = finished[0] / "runs/one"
    best = json.loads((folder / "result.json").read_text())["best"]
    found = json.loads((folder / f"diagnosis/{best['run']}/diagnosis.json").read_text())
    every = next(one for one in found["sections"]["word errors"] if one["name"] == "all")
    own = json.loads((folder / "finalists.json").read_text())[best["run"]]["dev"]["rates"]["wer"]
    assert every["rate"] == pytest.approx(own), "of the very model that was scored"
    runs = Runs(finished[0])
    mine = next(run for run in runs.children if run.data.tags["trial"] == best["run"])
    listed = {one.path for one in runs.client.list_artifacts(mine.info.run_id, "diagnosis")}
    assert listed == {"diagnosis/diagnosis.json", "diagnosis/diagnosis.html"}
    page = (folder / "report.html").read_text()
    assert f"The model of {best['run']} on dev" in page and "audio/mpeg" in page
    card = (folder / "export/README.md").read_text()
    assert "## What it gets wrong" in card and "Its learning curve: " in card


def test_a_report_can_be_written_again_and_is_the_same(finished: tuple[Path, str]) -> None:
    file = finished[0] / "runs/one/report.html"
    before = file.read_text()
    file.unlink()
    said = finish(start("--report", "one", "--set", f"storage={finished[0]}/runs"))
    assert str(file) in said.replace("\n", "") and file.read_text() == before
    assert "no sweep named two" in finish(start("--report", "two", "--set", f"storage={finished[0]}/runs"), code=2)


def test_the_winner_can_be_exported_and_transcribes(finished: tuple[Path, str], audio: Path, tmp_path: Path) -> None:
    folder, _ = finished
    cli = [str(Path(sys.executable).with_name("hausa-asr"))]
    uri = f"sqlite:///{folder}/mlflow.db"
    exported = subprocess.run(
        [*cli, "best-model", "--sweep", "one", "--uri", uri, "--out", str(tmp_path / "m"), "--json"],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    best = json.loads((folder / "runs/one/result.json").read_text())["best"]
    printed = json.loads(exported.stdout)
    assert (printed["trial"], printed["chosen"], printed["seeds"]) == (best["run"], "finalists", 2)
    assert (printed["wer"], printed["test_wer"]) == pytest.approx((best["wer"], best["test_wer"]))
    heard = subprocess.run(
        [*cli, "transcribe", "--model", str(tmp_path / "m"), str(audio / "test-0.wav"), "--json"],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    assert "test-0.wav" in heard.stdout


def test_a_name_that_exists_is_refused_with_what_to_type(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    output = finish(start("--config", folder / "tiny.yaml", "--set", "name=one"), code=2)
    assert f"--resume {folder}/runs/one)" in output.replace("\n", "")


def test_diverging_settings_end_at_once_and_the_sweep_goes_on(finished: tuple[Path, str]) -> None:
    trials = json.loads((finished[0] / "runs/one/result.json").read_text())["trials"]
    assert [trial["source"] for trial in trials] == ["baseline", WILD, HOT, *["search"] * 3]
    for trial in trials[1:3]:
        assert (trial["state"], trial["reason"]) == ("failed", "diverged")
        assert trial["steps"] <= 5, "within one evaluation"
    assert {trial["state"] for trial in trials[3:]} <= {"finished", "pruned"}


def test_two_workers_per_trial_learn_what_one_does_and_a_crash_costs_one_interval(
    settings: Path, finished: tuple[Path, str]
) -> None:
    folder = settings.parent
    sweep = folder / "runs/two"
    process = start("--config", settings, "--set", "name=two", "--set", "resources.workers_per_trial=2",
                    "--set", "search.trials=2")  # fmt: skip
    wait_for(lambda: sum(e["event"] == "reported" for e in ledger_of(sweep)) >= 2, process)
    worker = next(pid for pid in workers_of(process.pid))
    os.kill(worker, signal.SIGKILL)
    finish(process)
    check_whole(folder, "two", 2)
    one = Ledger(finished[0] / "runs/one").state.trials["t000"].reports
    two = Ledger(sweep).state.trials["t000"].reports
    assert "a slot broke: the worker group has ended" in (sweep / "sweep.log").read_text()
    evaluations = (sweep / "trials/t000/train.log").read_text().count(": wer=")
    assert evaluations <= len(two) + 2, "its newest report sent again, and at most one interval computed again"
    assert [r.step for r in two] == [r.step for r in one]
    for metric in ("train_loss", "loss", "masked_fraction"):
        assert two[0].metrics[metric] == pytest.approx(one[0].metrics[metric], rel=1e-3)
