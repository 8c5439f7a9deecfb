"""The commands as they are typed, on a real folder of audio and a tiny real model."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from hausa_asr.cli import main
from hausa_asr.utterance import SAMPLE_RATE
from helpers.speech import save_speech

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "datasets", "mlflow", "pyarrow", "numpy", "ray")


def run(*arguments: object) -> int:
    """Run a command in this process; its exit code."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: wav files, a table, and two clips that are no good."""
    folder = save_speech(tmp_path_factory.mktemp("my speech"))
    soundfile.write(folder / "quiet.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    with (folder / "table.csv").open("a", encoding="utf-8") as table:
        table.write("quiet.wav,ba kome,train,train0\ngone.wav,ba kome,train,train0\n")
    return folder


@pytest.fixture(scope="module")
def dataset(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "dataset"
    assert run("prepare", "--path", speech, "--allow-overlap", "sentence", "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def trial(dataset: Path, layer_norm_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trials") / "mine"
    assert run("finetune", "--out", out, *recipe(dataset, layer_norm_base)) == 0
    return out


def recipe(dataset: Path, base: Path, **settings: object) -> list[str]:
    """A fine-tune of four steps."""
    chosen = {
        "data.prepared": dataset,
        "model.base": base,
        "finetune.length_s": 25,
        "finetune.batch_s": 6,
        "finetune.eval_every_steps": 2,
        **{f"finetune.{name}": value for name, value in settings.items()},
    }
    return [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]


def test_help_is_quick_and_teaches() -> None:
    code = f"""
import sys
from hausa_asr.cli import main
for command in ([], ["prepare"], ["finetune"], ["best-model"], ["diagnose"], ["suspects"], ["transcribe"],
                ["serve"], ["doctor"], ["lm"], ["lm", "train"], ["lm", "tune"], ["lm", "test"], ["submit"], ["watch"]):
    try:
        main([*command, "--help"])
    except SystemExit as end:
        assert not end.code
print("imported:", [name for name in {HEAVY} if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "imported: []" in ran.stdout
    for command in (
        "prepare --path",
        "finetune --config",
        "best-model --sweep",
        "diagnose best-model",
        "suspects best-model",
        "transcribe clip.mp3",
        "serve best-model",
        "doctor --config",
        "lm train --prepared",
        "lm tune lm.arpa",
        "lm test lm.arpa",
        "submit --config",
        "watch my_sweep",
    ):
        assert f"  hausa-asr {command}" in ran.stdout


def test_user_errors_are_messages_and_exit_code_2(
    speech: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    cases: dict[str, list] = {
        "no such settings file": ["prepare", "--config", tmp_path / "none.yaml"],
        "did you mean lr_peak?": ["finetune", "--out", tmp_path / "x", "--set", "finetune.lr_peek=1"],
        "No settings were given": ["finetune", "--out", tmp_path / "x"],
        "no such model folder": ["transcribe", "--model", tmp_path / "none", speech / "dev-0.wav"],
        "no MLflow database": ["best-model", "--uri", f"sqlite:///{tmp_path}/none.db", "--out", tmp_path / "x"],
        "no column 'sentence'": ["prepare", "--path", speech, "--set", "data.text_column=sentence"],
        "prepared already": ["prepare", "--set", f"data.prepared={dataset}", "--out", tmp_path / "x"],
        "something else than a trial": ["finetune", "--out", speech, "--set", "finetune.seed=1"],
        "There is no such prepared dataset": ["diagnose", tmp_path / "none", tmp_path / "none"],
        "no split 'tets'": ["diagnose", tmp_path / "none", dataset, "--split", "tets"],
        "no text to learn from": ["lm", "train", "--out", tmp_path / "x"],
        "no such language model": ["lm", "test", tmp_path / "none.arpa", tmp_path / "none", dataset],
        "No such command": ["prepair"],
    }
    for message, arguments in cases.items():
        for json_ in ([], ["--json"]) if arguments[0] != "prepair" else ([],):
            assert run(*arguments, *json_) == 2, message
            printed = capsys.readouterr()
            assert message in printed.err
            assert "Traceback" not in printed.err
            assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


# -- prepare ----------------------------------------------------------------------------------------------------------


def test_prepare_tells_what_it_kept_and_refused(
    speech: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("prepare", "--path", speech, "--allow-overlap", "sentence", "--out", dataset) == 0
    printed = capsys.readouterr().out
    assert "16 of 18 utterances kept" in printed
    assert "nothing was redone" in printed
    assert "train         8 utterances" in printed
    assert "1  silent" in printed and "1  missing" in printed
    assert str(dataset / "refused.jsonl") in printed


def test_prepare_json_and_default_place(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert run("prepare", "--path", os.path.relpath(speech), "--allow-overlap", "sentence", "--json") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert Path(result["out"]).parent == tmp_path / "runs" / "_data"
    assert result["report"]["origin"]["corpus"] == "folder"
    assert result["report"]["origin"]["path"] == str(speech)
    assert result["report"]["utterances"] == {"in": 18, "kept": 16, "refused": 2}
    assert "preparing 18 utterances" in printed.err
    assert run("prepare", "--path", speech, "--allow-overlap", "sentence", "--json") == 0
    printed = capsys.readouterr()
    again = json.loads(printed.out)
    assert (again["out"], again["reused"], printed.err) == (result["out"], True, "")


# -- finetune ---------------------------------------------------------------------------------------------------------


def test_finetune_ends_with_a_model_and_goes_on_by_itself(
    trial: Path, dataset: Path, layer_norm_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = json.loads((trial / "trial.json").read_text())
    assert about.keys() >= {"trial", "base", "prepared", "settings"}
    assert (trial / "model" / "model.safetensors").is_file()
    card = (trial / "model" / "README.md").read_text(encoding="utf-8")
    assert "a single fine-tune" in card
    assert "Corpus: `my speech0`" in card

    capsys.readouterr()
    assert run("finetune", "--out", trial, *recipe(dataset, layer_norm_base), "--json") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert f"going on from step {result['steps']}" in printed.err
    assert result["resumed_from"] == result["steps"] >= 3
    assert result["model"] == str(trial / "model")
    assert result["dev"].keys() == result["test"].keys() == {"wer", "cer", "wer_folded", "cer_folded"}
    assert result["settings"]["batch_s"] == 6


def test_finetune_shows_its_progress(
    dataset: Path, layer_norm_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("finetune", "--out", tmp_path / "t", *recipe(dataset, layer_norm_base)) == 0
    printed = capsys.readouterr()
    steps = [line for line in printed.err.splitlines() if line.startswith("step ")]
    assert len(steps) >= 2
    assert all(word in steps[0] for word in ("train loss", "dev loss", "WER", "audio-s/s", "left"))
    assert f"model  {tmp_path / 't' / 'model'}" in printed.out
    assert "dev    WER" in printed.out and "test   WER" in printed.out


def test_finetune_does_not_mix_two_trials(
    trial: Path, dataset: Path, layer_norm_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in trial.rglob("*")}
    assert run("finetune", "--out", trial, *recipe(dataset, layer_norm_base, lr_peak=0.5)) == 2
    assert "finetune.lr_peak: 0.0001 then, 0.5 now" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in trial.rglob("*")} == before


def test_finetune_with_a_wrong_base_writes_nothing(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "bert"}')
    assert run("finetune", "--out", tmp_path / "t", *recipe(dataset, tmp_path / "base")) == 2
    assert "not a wav2vec 2.0 one" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


# -- transcribe -------------------------------------------------------------------------------------------------------


def test_transcribe_goes_on_after_a_bad_file(
    trial: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.wav").write_text("not audio")
    files = [speech / "dev-0.wav", tmp_path / "notes.wav", speech / "quiet.wav", speech / "dev-1.wav"]
    capsys.readouterr()
    assert run("transcribe", "--model", trial / "model", *files) == 2
    printed = capsys.readouterr()
    assert [line.split("\t")[0] for line in printed.out.splitlines()] == [str(files[0]), str(files[3])]
    assert f"{files[1]}: unreadable" in printed.err and f"{files[2]}: silent" in printed.err

    assert run("transcribe", "--model", trial / "model", "--json", *files) == 2
    result = json.loads(capsys.readouterr().out)["files"]
    assert [row["file"] for row in result] == [str(file) for file in files]
    assert [row["error"] is None for row in result] == [True, False, False, True]
    assert result[0]["duration_s"] == pytest.approx(1.0, abs=0.01)

    assert run("transcribe", "--model", trial / "model", files[0]) == 0
    assert capsys.readouterr().out == result[0]["text"] + "\n"


def test_transcribe_reads_standard_input(
    trial: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped = (speech / "dev-0.wav").read_bytes()
    capsys.readouterr()
    for files, content in (("-",), piped), ((speech / "dev-0.wav", "-"), piped), (("-",), b""):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        assert run("transcribe", "--model", trial / "model", *files) == (0 if content else 2)
        printed = capsys.readouterr()
        if len(files) > 1:
            (one, first), (two, second) = (line.split("\t") for line in printed.out.splitlines())
            assert (one, two) == (str(files[0]), "-") and first == second
    assert "nothing on standard input" in printed.err and not list(
        Path(tempfile.gettempdir()).glob("hausa-asr-stdin-*")
    )


def test_transcribe_takes_folders_and_writes_files_of_any_kind(
    trial: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / ".hidden/clips", tmp_path / "out"
    (folder / "more").mkdir(parents=True)
    for name in ("one.wav", "more/two.WAV"):
        (folder / name).write_bytes((speech / "dev-0.wav").read_bytes())
    (folder / "notes.txt").write_text("not audio, and not taken for it")
    model = ("transcribe", "--model", trial / "model")
    monkeypatch.chdir(folder / "more")
    capsys.readouterr()
    for place in (folder, ".."):
        assert run(*model, place) == 0
        assert [line.split("\t")[0][-7:] for line in capsys.readouterr().out.splitlines()] == ["two.WAV", "one.wav"]

    assert run(*model, folder, "--format", "srt") == 2 and "--out" in capsys.readouterr().err
    for kind, suffix in (("text", "txt"), ("srt", "srt"), ("vtt", "vtt"), ("jsonl", "jsonl")):
        assert run(*model, folder, "--format", kind, "--out", out) == 0
        printed = capsys.readouterr()
        assert printed.out == "" and f"2 of 2 transcripts written to {out}" in printed.err
        assert {file.name for file in out.glob(f"*.{suffix}")} == {f"one.{suffix}", f"two.{suffix}"}
    assert (out / "one.vtt").read_text().startswith("WEBVTT")

    assert run(*model, folder / "one.wav", "--format", "jsonl", "--words") == 0
    row = json.loads(capsys.readouterr().out)
    assert " ".join(word["text"] for word in row["words"]) == row["text"] == (out / "one.txt").read_text().strip()
    assert all(0 <= word["start_s"] < word["end_s"] <= row["duration_s"] + 0.02 for word in row["words"])

    (folder / "one.flac").write_bytes(b"")
    for bad, message in (
        ((folder, "--out", out), "would both be written"), ((tmp_path / ".hidden", "--words"), "no place for words"),
        ((folder, "--greedy", "--lm", folder), "Leave out one"), ((tmp_path / "out",), "no audio files"),
    ):  # fmt: skip
        assert run(*model, *bad) == 2 and message in capsys.readouterr().err


def test_what_is_printed_is_not_drawn_into_the_progress_bar(trial: Path, speech: Path, tmp_path: Path) -> None:
    """On a terminal, with the text sent to a file."""
    import pty

    files = [str(speech / name) for name in ("dev-0.wav", "dev-1.wav")]
    ours, theirs = pty.openpty()
    with (tmp_path / "texts.tsv").open("w") as texts:
        command = [sys.executable, "-m", "hausa_asr.cli", "transcribe", "--model", str(trial / "model"), *files]
        done = subprocess.run(command, stdout=texts, stderr=theirs, cwd=ROOT, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    drawn = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0 and "of audio in" in drawn
    assert [line.split("\t")[0] for line in (tmp_path / "texts.tsv").read_text().splitlines()] == files


# -- diagnose ---------------------------------------------------------------------------------------------------------


def test_diagnose_counts_shows_and_compares(
    trial: Path, dataset: Path, layer_norm_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, page = trial / "model", tmp_path / "pages/diagnosis.html"
    capsys.readouterr()
    assert run("diagnose", model, dataset, "--split", "test", "--baseline", model, "--out", page) == 0
    printed = capsys.readouterr().out
    assert "4 utterances; intervals: 95 %" in printed and f"page  {page}" in printed
    assert run("diagnose", model, dataset, "--split", "test", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["baseline"] is None
    every = {one["name"]: one for one in found["sections"]["word errors"]}["all"]
    assert run("finetune", "--out", trial, "--json", *recipe(dataset, layer_norm_base)) == 0
    assert every["rate"] == pytest.approx(json.loads(capsys.readouterr().out)["test"]["wer"])
    html = page.read_text(encoding="utf-8")
    assert html.count("<audio") == len(found["worst"]) == 4
    assert "baseline" in html and "http" not in html, "it loads nothing from elsewhere"


def test_suspects_are_listed_written_and_shown(
    trial: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, page = tmp_path / "new/suspects.tsv", tmp_path / "suspects.html"
    capsys.readouterr()
    assert run("suspects", trial / "model", dataset, "--out", table, "--page", page) == 0
    printed = capsys.readouterr().out
    assert " of 8 utterances are suspicious" in printed and f"table  {table}" in printed and f"page   {page}" in printed
    assert table.read_text(encoding="utf-8").startswith("id\tspeaker\tseconds\tnats\twhy\twritten\theard\n")
    assert "Suspects in train" in page.read_text(encoding="utf-8")
    assert run("suspects", trial / "model", dataset, "--split", "none") == 2
    assert "no split 'none'" in capsys.readouterr().err


# -- lm -----------------------------------------------------------------------------------------------------------


def test_a_language_model_is_trained_tuned_tested_and_heard(
    trial: Path, dataset: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, lm, model = tmp_path / "text.txt", tmp_path / "ha.arpa", trial / "model"
    text.write_text("Ina da gida. Ta yi ₦500 jiya!\nYa tafi gida.\n" * 5, encoding="utf-8")
    capsys.readouterr()
    assert run("lm", "train", text, "--prepared", dataset, "--out", lm) == 0
    printed = capsys.readouterr().out
    assert "5 sentences with characters outside the alphabet" in printed
    assert "sentences that dev or test have" in printed, "train and dev share some"
    assert "dev    perplexity" in printed and f"hausa-asr lm tune {lm} MODEL {dataset}" in printed

    assert run("lm", "tune", lm, model, dataset, "--json") == 0
    tuned = json.loads(capsys.readouterr().out)
    assert tuned["wer"] <= tuned["greedy_wer"] and tuned["utterances"] == 4
    assert run("lm", "test", lm, model, dataset, "--split", "dev", "--json") == 0
    tested = json.loads(capsys.readouterr().out)
    assert tested["beam"]["wer"] == pytest.approx(tuned["wer"]), "by the weights that tune has stored"
    assert tested["gain"]["wer"] == pytest.approx(tuned["wer"] - tuned["greedy_wer"])
    assert run("lm", "test", lm, model, dataset) == 0
    assert "test   WER " in capsys.readouterr().out

    clip = speech / "dev-0.wav"
    assert run("transcribe", "--model", model, "--lm", lm, clip) == 0
    heard = capsys.readouterr().out.split()
    assert set(heard) <= {"ina", "da", "gida", "ya", "tafi"}, "only words that it has read"


# -- best-model -------------------------------------------------------------------------------------------------------


def test_best_model_takes_its_place_from_settings_and_prints_json(
    trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hausa_asr.tracking.tracker import Tracker
    from hausa_asr.training import checkpoint

    best = checkpoint.best(trial)
    assert best is not None
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "hausa-asr")
    parent = tracker.start_sweep("one", {}, {})
    run_id = tracker.start_trial(parent, "one", "t000", {}, {"checkpoint_uri": best.folder.as_uri()})
    tracker.end_trial(run_id, "finished", "", {"best_wer": 0.5, "best_cer": 0.25, "best_loss": 1.0})

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    capsys.readouterr()
    assert run("best-model", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result == {
        "out": str(tmp_path / "best-model"),
        "sweep": "one",
        "trial": "t000",
        "wer": 0.5,
        "cer": 0.25,
        "test_wer": None,
        "test_cer": None,
        "source": "checkpoint",
        "run_id": run_id,
        "chosen": "lowest dev WER",
        "seeds": 0,
        "soup": [],
        "verdict": "",
        "onnx": None,
        "scored_again": None,
        "calibrations": {},
        "rtf": None,
        "version": None,
    }
    assert run("best-model") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("best-model", "--overwrite", "--sweep", "one") == 0
    printed = capsys.readouterr().out
    assert "trial  t000 of sweep one, from its checkpoint" in printed
    assert "dev    WER 0.5000, CER 0.2500" in printed
    (tmp_path / "my.yaml").write_text("name: two\n")
    assert run("best-model", "--overwrite", "--config", "my.yaml") == 2
    assert "has no sweep 'two'" in capsys.readouterr().err, "the settings name it"


def test_best_model_takes_a_language_model_along(
    trial: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hausa_asr.decoding.weights import Weights, model_digest, store_weights
    from hausa_asr.tracking.tracker import Tracker
    from hausa_asr.training import checkpoint

    best = checkpoint.best(trial)
    assert best is not None
    uri, out, lm = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "out", tmp_path / "ha.arpa"
    tracker = Tracker(uri, "hausa-asr")
    parent = tracker.start_sweep("one", {}, {})
    run_id = tracker.start_trial(parent, "one", "t000", {}, {"checkpoint_uri": best.folder.as_uri()})
    tracker.end_trial(run_id, "finished", "", {"best_wer": 0.5, "best_cer": 0.25, "best_loss": 1.0})
    command = ("best-model", "--uri", uri, "--out", out, "--overwrite", "--with-lm", lm)
    capsys.readouterr()
    assert run(*command) == 2
    assert "no such language model" in capsys.readouterr().err and not out.exists()

    (tmp_path / "text.txt").write_text("ina da gida\n", encoding="utf-8")
    assert run("lm", "train", tmp_path / "text.txt", "--out", lm) == 0
    store_weights(lm, Weights(3.0, 0.5, 20), dev_wer=0.2, greedy_dev_wer=0.3, model="/home/someone", dataset="/data")
    assert run(*command) == run(*command) == 0, "and what it wrote is its own to replace"
    assert run(*command[:-2]) == 2 and (out / "lm.arpa").is_file(), "but not to lose"
    card = (out / "README.md").read_text(encoding="utf-8")
    assert (
        "Its weight is 3, with +0.5 for each word: tuned on dev, where WER was 0.2000 with it, 0.3000 without." in card
    )
    assert "someone" not in "".join(file.read_text() for file in out.glob("lm.arpa*"))
    for digest, words in ((model_digest(out), "tuned on dev"), ("0" * 64, "tuned beside another model")):
        store_weights(lm, Weights(3.0, 0.5, 20), dev_wer=0.2, greedy_dev_wer=0.3, model_digest=digest)
        assert run(*command) == 0
        assert words in (out / "README.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert run("transcribe", "--model", out, speech / "dev-0.wav") == 0
    own = capsys.readouterr().out
    assert run("transcribe", "--model", out, "--lm", lm, speech / "dev-0.wav") == 0
    assert capsys.readouterr().out == own and set(own.split()) <= {"ina", "da", "gida"}, "it is used unasked"
    assert run("transcribe", "--model", out, "--greedy", speech / "dev-0.wav") == 0
    greedy = capsys.readouterr().out
    assert run("transcribe", "--model", trial / "model", speech / "dev-0.wav") == 0
    assert capsys.readouterr().out == greedy
