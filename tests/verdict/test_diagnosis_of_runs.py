"""What scored runs get wrong, from the transcripts that were kept, on a split with real sounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hausa_asr.dataset.parts import dev_part, ids_of
from hausa_asr.utterance import SAMPLE_RATE, Example
from sweeps.record.trial import Report, TrialRecord
from sweeps.verdict.diagnosis import diagnosis_of, view_of, write_diagnoses
from sweeps.verdict.scores import WordErrors

TEXTS = ["ina da ruwa", "za ta zo gida", "ya sayi kifi a kasuwa", "ba na so", "mun gode da abinci"] * 8


class Spoken:
    """Forty seconds of noise with transcripts, a second each."""

    n_samples = np.full(len(TEXTS), SAMPLE_RATE)

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, index: int) -> Example:
        samples = np.random.default_rng(index).uniform(-0.1, 0.1, SAMPLE_RATE).astype(np.float32)
        return Example(f"u{index:02d}", samples, np.zeros(1, np.int64), TEXTS[index], f"s{index % 10}")


def run(name: str) -> TrialRecord:
    best = {"step": 1.0, "wer": 0.1, "cer": 0.1, "loss": 0.1}
    return TrialRecord(name, {}, "finalist", of=name[:4], reports=[Report(1, 1, 1.0, dict(best), best)])


@pytest.mark.parametrize("part_s", [0.0, 20.0])
def test_each_run_is_diagnosed_on_the_part_that_trials_were_scored_on(tmp_path: Path, part_s: float) -> None:
    dev, errors = Spoken(), WordErrors(tmp_path)
    texts = {f"u{n:02d}": text for n, text in enumerate(TEXTS)}
    part = ids_of(dev_part(dev, part_s))
    assert len(part) == (20 if part_s else 40)
    short = [" ".join(word for word in texts[one].split() if len(word) > 2) for one in part]
    for name, heard in (("t001-s1", short), ("t000-s1", [texts[one] for one in part])):
        errors.put(run(name), {"dev": {"errors": [], "words": [], "speakers": [], "rates": {}, "heard": heard}})
    errors.put(run("t002-s1"), {"dev": {"errors": [], "words": [], "speakers": [], "rates": {}}})  # of an older version
    runs = [run(name) for name in ("t000-s1", "t001-s1", "t002-s1")]
    written = write_diagnoses(tmp_path, dev, part_s, errors, runs, "t000-s1")
    assert set(written) == {"t000-s1", "t001-s1"}
    assert all((folder / "diagnosis.html").is_file() for folder in written.values())
    found = diagnosis_of(tmp_path, "t001-s1")
    assert found is not None
    gone = {one.name: one.rate for one in found.sections["dropped words by length"]}
    assert gone["words of 1 or 2 letters"] == 1.0 and gone["longer words"] == 0.0
    assert found.utterances == len(part) and {one.reference for one in found.worst} <= set(TEXTS)
    clean = diagnosis_of(tmp_path, "t000-s1")
    assert clean is not None and clean.findings == []
    shown = view_of(tmp_path, "t001-s1", "t000-s1", dev, part_s)
    assert shown is not None and ("part of dev" in shown.about) == bool(part_s)
    assert "#baseline" in shown.sections[0].table.columns
    examples = shown.examples[0].utterances
    assert all(one.sound and texts[one.about.split(":")[0]] == one.reference for one in examples)
    silent = view_of(tmp_path, "t001-s1", None, None, part_s)
    assert silent is not None and not silent.examples[0].utterances[0].sound, "the dataset may be gone"
    assert diagnosis_of(tmp_path, "t002-s1") is None and view_of(tmp_path, "t002-s1", None, dev, part_s) is None


def test_without_transcripts_nothing_is_written(tmp_path: Path) -> None:
    assert write_diagnoses(tmp_path, Spoken(), 0.0, WordErrors(tmp_path), [run("t001-s1")], None) == {}
    assert not list(tmp_path.iterdir())
