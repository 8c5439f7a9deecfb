"""What an exported model says about itself: a `Card` in, a Hugging Face model card (Markdown with YAML) out.

Made by the end of a sweep, by `best-model` and by `finetune`; written by `export`. Rates are shares: 1.0 is 100 %.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Any

import yaml

from hausa_asr.export.card_data import DEMO_WARNING, corpus_of, is_demo, of_data, table
from hausa_asr.versions import versions

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LIBRARIES = ("torch", "torchaudio", "transformers", "datasets", "jiwer")
_SCORE_NAMES = {
    "wer": "WER",
    "cer": "CER",
    "wer_folded": "WER, hooks folded",
    "cer_folded": "CER, hooks folded",
}


@dataclass(frozen=True)
class ErrorRates:
    """Error rates of greedy decoding over a whole split; `folded` forgives hooked letters and apostrophes."""

    wer: float
    cer: float
    wer_folded: float | None = None
    cer_folded: float | None = None


@dataclass(frozen=True)
class Card:
    """Everything that a model card shows.

    Attributes:
        sweep: the sweep's name; "" for a single fine-tune.
        trial: the trial's id.
        base: the base checkpoint: a hub id, a folder, or `demo`.
        recipe: the settings of the fine-tune, by name; `without_base` of those that a trial had.
        data: `report.json` of the prepared dataset; {} where it is lost.
        dev, test: of the model; None for test if there is no test split or it was not scored.
        baseline_trial, baseline_dev, baseline_test: of the sweep's baseline, None if there is none.
        members: the trials whose weights this model is the mean of, if it is such an average.
        mistakes: what the model gets wrong on dev, in sentences; () if that is not known.
        learning: what its learning curve shows, in sentences; () if that is not known.
        base_license, data_license: of the base checkpoint and of the data; "" if not known.
        headline: how the winner's setting did against the baseline, means over seeds, in a sentence; "" if not known.
    """

    sweep: str
    trial: str
    base: str
    recipe: dict[str, Any]
    data: dict[str, Any]
    dev: ErrorRates
    test: ErrorRates | None = None
    baseline_trial: str | None = None
    baseline_dev: ErrorRates | None = None
    baseline_test: ErrorRates | None = None
    headline: str = ""
    members: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()
    learning: tuple[str, ...] = ()
    base_license: str = ""
    data_license: str = ""


def render(card: Card) -> str:
    """The README.md of an exported model."""
    header = yaml.safe_dump(_header(card), sort_keys=False, allow_unicode=True, width=1000)
    parts = [
        f"# Hausa speech recognition: {_title(card)}",
        _opening(card),
        "## How good it is",
        _scores(card),
        *(("## What it gets wrong", _mistakes(card)) if card.mistakes else ()),
        "## How to use it",
        _USE,
        "## What it learned from",
        of_data(card.data),
        "## How it was trained",
        f"Base checkpoint: `{shown_base(card)}`"
        + (", the tiny demonstration model of the project" if card.base == "demo" else "")
        + (f". The settings are those of `{card.members[0]}`, the others' differ" if card.members else "")
        + ". These settings are in `settings.json` too.",
        table(("setting", "value"), [(f"`{name}`", json.dumps(value)) for name, value in card.recipe.items()]),
        "Settings that end in `_s` are in seconds of audio, those in `_fraction` are shares of the trial's updates.",
        *((f"Its learning curve: {' '.join(card.learning)}",) if card.learning else ()),
        "## Spelling",
        _SPELLING,
        "## Limits",
        _limits(card),
        "## Versions",
        f"{versions(_LIBRARIES)}.",
    ]
    return f"---\n{header}---\n\n" + "\n\n".join(parts) + "\n"


def _title(card: Card) -> str:
    trial = f"average of {len(card.members)} runs" if card.members else card.trial
    return f"{card.sweep}, {trial}" if card.sweep else trial


def shown_base(card: Card) -> str:
    """The base checkpoint; of a folder only its name, since paths of the user's machine stay private."""
    return PurePath(card.base).name if PurePath(card.base).is_absolute() else card.base


def _header(card: Card) -> dict[str, Any]:
    """What the hub reads; see huggingface.co/docs/hub/model-cards."""
    header: dict[str, Any] = {
        "language": ["ha"],
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["automatic-speech-recognition", "hausa", "wav2vec2", "ctc", "hausa-asr-sweeps"],
        "metrics": ["wer", "cer"],
    }
    if _HUB_ID.fullmatch(card.base):
        header["base_model"] = card.base
    if card.base_license and card.base_license == card.data_license:
        header["license"] = card.base_license
    results = [
        {
            "task": {"type": "automatic-speech-recognition", "name": "Speech recognition"},
            "dataset": {"name": corpus_of(card.data), "type": corpus_of(card.data), "split": split},
            "metrics": [
                {"type": name[:3], "name": _SCORE_NAMES[name], "value": round(value, 4)}
                for name in _SCORE_NAMES
                if (value := getattr(scores, name)) is not None
            ],
        }
        for split, scores in (("dev", card.dev), ("test", card.test))
        if scores is not None
    ]
    header["model-index"] = [{"name": _title(card), "results": results}]
    return header


def _opening(card: Card) -> str:
    whence = f"the best trial (`{card.trial}`) of the sweep `{card.sweep}`" if card.sweep else "a single fine-tune"
    if card.members:
        who = ", ".join(f"`{name}`" for name in card.members)
        whence = f'the mean of the weights (a "model soup") of {who}, fine-tunes of the sweep `{card.sweep}`'
    text = f"A wav2vec 2.0 model with a CTC head over the Hausa alphabet, from {whence}. Selected by WER on dev."
    if is_demo(card.data):
        text += f"\n\n{DEMO_WARNING}"
    return text


def _scores(card: Card) -> str:
    columns: list[tuple[str, ErrorRates | None]] = [("dev", card.dev), ("test", card.test)]
    is_baseline = card.baseline_trial == card.trial and not card.members
    if card.baseline_trial is not None and not is_baseline:
        columns += [("baseline, dev", card.baseline_dev), ("baseline, test", card.baseline_test)]
    rows = [
        (label, *("–" if scores is None else _rate(getattr(scores, name)) for _, scores in columns))
        for name, label in _SCORE_NAMES.items()
    ]
    text = table(("", *(heading for heading, _ in columns)), rows)
    text += (
        "\n\nGreedy decoding, no language model; 1.0 is 100 %. The strict rates are of the spelling described below; "
        "with hooks folded, ɓ ɗ ƙ count as b d k and apostrophes are dropped on both sides."
    )
    if is_baseline:
        text += " This trial is the sweep's baseline, the published recipe: no other was better."
    elif card.baseline_trial is not None:
        text += f" The baseline (`{card.baseline_trial}`) is the published recipe on the same data."
    if card.test is None:
        text += " The test split was not scored."
    if card.headline:
        text += f"\n\nThat is of this very model. The sweep's verdict, with 95 % intervals: {card.headline}."
    return text


def _mistakes(card: Card) -> str:
    listed = "\n".join(f"- {one}" for one in card.mistakes)
    return f"On dev, with 95 % intervals; `hausa-asr diagnose` gives all counts, and examples to listen to.\n\n{listed}"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


_USE = """\
```python
import soundfile
from transformers import pipeline

model = "."  # this folder, or its id on the hub
recognise = pipeline("automatic-speech-recognition", model=model)
samples, rate = soundfile.read("clip.wav", dtype="float32")
print(recognise({"raw": samples, "sampling_rate": rate})["text"])
```

Or, with the project installed, for files of any audio format: `hausa-asr transcribe --model . clip.mp3`. The model
wants 16 kHz mono; both of these resample."""

_SPELLING = """\
Transcripts were normalised before training and scoring, and this is what the model writes: lower case; the letters
a to z, ɓ, ɗ, ƙ and the apostrophe; ƴ as 'y; every kind of apostrophe as '; marks of tone and length dropped; other
punctuation a space; whole numbers in words. Score it against text that is normalised in the same way."""


def _license(card: Card) -> str:
    of = {"the base checkpoint": card.base_license, "the data": card.data_license}
    known = " and ".join(f"that of {what} is {one}" for what, one in of.items() if one)
    if card.base_license and card.base_license == card.data_license:
        return f"Its licence is that of the base checkpoint and of the data, {card.base_license}."
    return (
        f"No licence is stated here, since it follows from those of the base checkpoint and the data"
        f"{f' ({known})' if known else ''}: add `license:` to this file before you publish the model."
    )


def _limits(card: Card) -> str:
    limits = [
        "It was selected on the dev split, so its dev rates flatter it; the test split took no part in the selection.",
        "It writes no punctuation, capital letters or digits, and knows no letters but those above.",
        "Speech that differs from its training data in accent, topic, noise or microphone will be read worse.",
        _license(card),
    ]
    if is_demo(card.data):
        limits.insert(0, "It is for trying things out. Do not use it on real speech.")
    return "\n".join(f"- {limit}" for limit in limits)


def scores_from(figures: Mapping[str, float], prefix: str = "") -> ErrorRates | None:
    """The error rates among figures by name (`wer`, `cer`, ...), each with a prefix; None without a WER and a CER."""
    rates = {field.name: figures.get(prefix + field.name) for field in fields(ErrorRates)}
    if rates["wer"] is None or rates["cer"] is None:
        return None
    return ErrorRates(**rates)  # type: ignore[arg-type]
