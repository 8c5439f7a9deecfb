"""What the models that were scored at the end of a sweep get wrong, from what they heard of dev.

In: transcripts that `WordErrors` keeps, so that no model is run again. Out: a diagnosis for each run, in a folder of
its own in the sweep's `diagnosis/`, which MLflow gets as artifacts of that run. Called by `result` and `closing`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hausa_asr.dataset.parts import dev_part
from hausa_asr.diagnosis.diagnose import Diagnosis, diagnose
from hausa_asr.diagnosis.heard import Heard, corpus_of, snr_db
from hausa_asr.diagnosis.page import View, as_page, sounds_of, view
from hausa_asr.files import write_whole
from hausa_asr.utterance import SAMPLE_RATE, Split
from sweeps.record.names import DIAGNOSIS_FOLDER
from sweeps.record.trial import TrialRecord
from sweeps.verdict.scores import WordErrors

_JSON, _PAGE = "diagnosis.json", "diagnosis.html"


def write_diagnoses(
    folder: Path,
    dev: Split,
    part_s: float,
    errors: WordErrors,
    runs: Sequence[TrialRecord],
    baseline: str | None,
    corpora: Sequence[str] = (),
) -> dict[str, Path]:
    """Diagnose every run whose transcripts are known, and write what was found.

    Args:
        folder: the sweep's.
        dev: the whole of dev.
        part_s: how much of it the trials were scored on, in seconds of audio; that part is diagnosed. 0: all of it.
        errors: what the models heard.
        runs: those to diagnose.
        baseline: the run that all others are compared with; None if there is none.
        corpora: the names of those that were joined, if several were.

    Returns:
        The folder that was written for each, by its name.
    """
    heard = {run.id: scored["heard"] for run in runs if (scored := errors.scored(run, "dev")) and "heard" in scored}
    if not heard:
        return {}
    part = dev_part(dev, part_s)
    known = _known(part, corpora)
    found = {name: diagnose(replace(known, hypotheses=texts)) for name, texts in heard.items()}
    written = {}
    for name, one in found.items():
        beside = found.get(baseline or "") if name != baseline else None
        into = folder / DIAGNOSIS_FOLDER / name
        into.mkdir(parents=True, exist_ok=True)
        write_whole(into / _JSON, json.dumps(one.to_json(), ensure_ascii=False, indent=1))
        write_whole(into / _PAGE, as_page(one, part, f"{name} of {folder.name} on dev", beside))
        written[name] = into
    return written


def _known(part: Split, corpora: Sequence[str]) -> Heard:
    """All that is known of a split's utterances before a model hears them."""
    ids, texts, speakers, levels = [], [], [], []
    for index in range(len(part)):  # one at a time: an hour of samples is much
        one = part[index]
        ids.append(one.id)
        texts.append(one.text)
        speakers.append(one.speaker)
        levels.append(snr_db(one.samples))
    seconds = np.asarray(part.n_samples) / SAMPLE_RATE
    whence = [corpus_of(one, corpora) for one in ids] if corpora else ()
    return Heard(ids, texts, [], speakers, seconds, np.array(levels), whence)


def diagnosis_of(folder: Path, run: str) -> Diagnosis | None:
    """A run's diagnosis, as it was written; None if there is none that this version can read.

    Args:
        folder: the sweep's.
        run: the trial's id.
    """
    file = folder / DIAGNOSIS_FOLDER / run / _JSON
    try:
        return Diagnosis.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def view_of(folder: Path, run: str, baseline: str | None, dev: Split | None, part_s: float) -> View | None:
    """A run's diagnosis beside the baseline's, for the report; None if it was not written.

    Args:
        folder: the sweep's.
        run, baseline: the runs' ids.
        dev: the whole of dev, for the sounds; None if it can't be had.
        part_s: as in `write_diagnoses`.
    """
    one = diagnosis_of(folder, run)
    if one is None:
        return None
    part = dev_part(dev, part_s) if dev is not None else None
    sounds = sounds_of(one, part) if part is not None else {}
    other = diagnosis_of(folder, baseline) if baseline and baseline != run else None
    shown = view(one, sounds, other)
    of = "the part of dev that trials are scored on" if part is not dev else "dev"
    return shown._replace(about=f"The model of {run} on {of}: {shown.about}")
