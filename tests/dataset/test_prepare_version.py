"""What a prepared dataset is known by: a version that someone raises, never the text of our sources."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import soundfile

from hausa_asr.dataset.prepare import VERSION, Prepared, PrepareSettings, load_prepared, prepare
from hausa_asr.utterance import Utterance

OUTCOMES = {1: "5466532edaab3cd6"}
"""What comes of the corpus below, by `prepare.VERSION`. A change of it needs another version, or datasets and sweeps
that were begun before would go on with other utterances under the same name."""


def corpus(folder: Path) -> list[Utterance]:
    """Forty clips of two corpora, with and without splits: numbers, hooks, repeats, odd letters, one too short."""
    folder.mkdir()
    sentences = [
        "Ina da 21 ƙasa!",
        "‘Yan ɗaki, ya'ya",
        "Shekara 1,999",
        "ƴar gari",
        "abinci da ruwa",
        "ina kwana",
        "x ж",
        "",
    ]
    made = []
    for number in range(40):
        duration_s = 0.25 if number == 13 else 1.0 + number % 3
        samples = np.random.default_rng(number % 37).normal(0, 0.1, int(duration_s * 16_000)).astype(np.float32)
        file = folder / f"{number}.wav"
        soundfile.write(file, samples, 16_000)
        split = (None, "train", "dev", "test")[number % 4] if number < 20 else None
        text = f"{sentences[number % 8]} {'abcdefghij'[number % 10]}" if number != 7 else ""
        made.append(
            Utterance(str(number), str(file), text, split, f"s{number % 6}", None, "one" if number < 20 else "two")
        )
    return made


def outcome(made: Prepared) -> str:
    """All that a change of the rules would change, in 16 letters."""
    rows = [
        [name, example.id, example.text, example.labels.tolist(), example.speaker]
        for name, split in made.splits.items()
        for example in split
    ]
    refused = [json.loads(line) for line in (made.path / "refused.jsonl").read_text(encoding="utf-8").splitlines()]
    reasons = sorted((each["id"], each["reason"]) for each in refused)
    report = {name: made.report[name] for name in ("utterances", "letters")}
    text = json.dumps([rows, reasons, report], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_another_outcome_has_another_version(tmp_path: Path) -> None:
    made = prepare(corpus(tmp_path / "audio"), tmp_path / "out", PrepareSettings(overlap="drop"))
    assert outcome(made) == OUTCOMES[VERSION], "raise prepare.VERSION, and write the new outcome here"


def test_a_dataset_of_an_older_version_opens_and_keeps_its_name(tmp_path: Path) -> None:
    listed, out = corpus(tmp_path / "audio"), tmp_path / "out"
    settings = PrepareSettings(overlap="drop")
    made = prepare(listed, out, settings)
    # As it was before: the name made of our sources, and nothing of what it was made of.
    old, file = "0123456789abcdef", out / "prepared.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    (out / "splits" / made.fingerprint).rename(out / "splits" / old)
    about |= {"fingerprint": old, "files": {k.replace(made.fingerprint, old): v for k, v in about["files"].items()}}
    del about["made_of"]
    file.write_text(json.dumps(about), encoding="utf-8")

    assert load_prepared(out).fingerprint == old
    again = prepare(listed, out, settings)
    assert again.fingerprint == old and not again.reused  # chosen anew, with the same outcome
    third = prepare(listed, out, settings)
    assert third.fingerprint == old and third.reused
    assert [path.name for path in (out / "splits").iterdir()] == [old]
    other = prepare(listed[1:], out, settings)
    assert other.fingerprint != old
