"""A model that can read suspects transcripts that were planted wrong before those that are right."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hausa_asr.diagnosis import cross_fit as module
from hausa_asr.diagnosis.suspects import Heard, Suspect, limit_of, listen, reason, suspects, suspicious
from hausa_asr.diagnosis.suspects_page import as_lines, as_page, as_table
from hausa_asr.errors import UserError
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.text import encode
from hausa_asr.training import checkpoint
from hausa_asr.training import finetune as training
from hausa_asr.training.finetune import Data
from hausa_asr.utterance import Example, Split
from helpers.fine_tunes import RECIPE, run
from helpers.speech import ToneSplit

PLANTED = {3: "doki da ɗoki", 8: "ya", 17: "ya zo ina so", 29: "ina"}


class Planted(ToneSplit):
    """Speech whose transcripts are right, but for some."""

    def __getitem__(self, index: int) -> Example:
        example = super().__getitem__(index)
        text = PLANTED.get(index, example.text) if len(self) > 30 else example.text
        return example._replace(text=text, labels=np.array(encode(text)))


@pytest.mark.slow
def test_planted_transcripts_are_found_by_a_model_that_has_not_learnt_them(
    layer_norm_base: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, length_s=6000, eval_every_steps=200, mask_time_prob=0.0, mask_feature_prob=0.0,
                                 lr_peak=5e-3, freeze_feature_encoder=False)  # fmt: skip
    _, reports = run(recipe, Data(ToneSplit(24, 1), ToneSplit(8, 2)), layer_norm_base, tmp_path)
    assert reports[-1].best["cer"] < 0.2, "it can read, or this is no test"
    train, heard = Planted(40, 0), list[int]()
    found, limit = suspects(*checkpoint.load(reports[-1].best_checkpoint), train, heard.append)
    assert {one.place for one in found[: len(PLANTED)]} == set(PLANTED), "they come first"
    assert len(found) <= len(train) // 2, "and not nearly all are suspected, though it cannot read all of them"
    assert [one.nats for one in found] == sorted((one.nats for one in found), reverse=True)
    assert all(one.nats >= round(limit, 2) - 0.01 for one in found) and heard == [40]
    by_place = {one.place: one for one in found}
    assert by_place[3].written == PLANTED[3] and by_place[3].seconds == pytest.approx(
        train.n_samples[3] / 16_000, abs=0.01
    )

    rows = list(csv.DictReader(io.StringIO(as_table(found)), delimiter="\t"))
    assert [row["id"] for row in rows] == [one.id for one in found]
    assert as_lines(found, 40, limit)[0].startswith(f"{len(found)} of 40 utterances are suspicious")
    page = as_page(found, train, "Suspects", "a line")
    assert page.count("<audio") == len(found) and "http" not in page


def test_a_model_that_errs_everywhere_has_a_higher_limit_and_sound_data_no_suspects() -> None:
    chance = np.random.default_rng(0)
    sure = np.where(chance.random(1000) < 0.9, 0.0, chance.exponential(0.05, 1000))
    unsure = chance.gamma(2.0, 0.15, 1000)
    assert limit_of(sure) == 0.4
    for usual in (sure, unsure):
        limit = limit_of(usual)
        assert (usual >= limit).mean() < 0.01
        assert (np.full(10, 4.0) >= limit).all(), "other sentences, as measured on read Yoruba"
    assert limit_of(unsure) > 2 * limit_of(sure)


@pytest.mark.parametrize(
    ("written", "heard", "why"),
    [
        ("ina da gida", "", "nothing was heard"),
        ("ina da gida", "ruwa ya zo kasuwa", "nothing like it was heard"),
        ("ina da gida a kano", "ina da gida", "not heard at the end: a kano"),
        ("ina da gida a kano", "yau ina da gida a kano", "not written at the beginning: yau"),
        ("ina da gida a kano", "ina da mota a kano", "gida was heard as mota"),
        ("ina da gida a kano", "inada gida a kano", "spaces differ"),
        (
            "ina da gida a kano yau kuma",
            "ina mota a kano gobe kuma",
            "da gida was heard as mota; yau was heard as gobe",
        ),
    ],
)
def test_the_reason_names_what_differs(written: str, heard: str, why: str) -> None:
    assert reason(written, heard) == why


def test_cross_fitted_no_utterance_is_judged_by_a_model_that_has_learnt_it(
    layer_norm_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it then finds what is wrong is measured by benchmarks/suspects.py: these models have learnt nothing."""
    recipe = dataclasses.replace(RECIPE, length_s=240, eval_every_steps=40)
    learned: list[set[str]] = []
    judged: list[set[str]] = []
    texts: list[list[str]] = []
    fine_tune = training.finetune

    def watched(config: FinetuneConfig, data: Data, *more: Any, **options: Any) -> Any:
        learned.append({data.train[index].id for index in range(len(data.train))})
        assert config.length_s == pytest.approx(120, rel=0.1), "as many passes over half of the data"
        return fine_tune(config, data, *more, **options)

    def heard(model: Any, processor: Any, split: Split) -> Heard:
        judged.append({split[index].id for index in range(len(split))})
        return listen(model, processor, split)

    def kept(split: Split, found: Heard) -> tuple[list[Suspect], float]:
        texts.append(found.written)
        assert len(found.heard) == len(found.nats) == len(split) and found.nats.std() > 0
        return suspicious(split, found)

    for place, name, instead in (
        (training, "finetune", watched),
        (module, "listen", heard),
        (module, "suspicious", kept),
    ):
        monkeypatch.setattr(place, name, instead)
    train, steps = Planted(40, 0), set[tuple[int, int]]()
    base, dev = str(layer_norm_base), ToneSplit(8, 2)
    module.cross_fitted(recipe, base, train, dev, 2, lambda fold, step, of: steps.add((fold, of)))
    everything = {train[index].id for index in range(40)}
    assert [one | other for one, other in zip(learned, judged, strict=True)] == [everything] * 2
    assert not learned[0] & judged[0] and not learned[1] & judged[1] and judged[0] | judged[1] == everything
    assert texts == [[train[index].text for index in range(40)]], "each in its place"
    assert {fold for fold, _ in steps} == {1, 2}
    with pytest.raises(UserError, match="too few"):
        module.cross_fitted(recipe, base, ToneSplit(5, 0), dev, 3)
