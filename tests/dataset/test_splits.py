"""Splits: a cut leaves nothing on two sides, no side empty, and what a corpus calls test untouched."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hausa_asr.dataset import splits
from hausa_asr.dataset.prepare import PrepareSettings, load_prepared, prepare
from hausa_asr.errors import UserError
from hausa_asr.utterance import Utterance
from helpers.noise import WORDS, corpus


def sides(path: Path, key: str) -> dict[str, set[str]]:
    return {name: {getattr(each, key) for each in split} for name, split in load_prepared(path).splits.items()}


@pytest.mark.parametrize("speakers", [0, 4, 5, 20])
def test_a_corpus_without_splits_is_cut_with_nothing_on_two_sides(tmp_path: Path, speakers: int) -> None:
    made = corpus(tmp_path / "audio", {None: 100}, speakers)
    report = prepare(made, tmp_path / "out").report
    how = "speaker" if speakers >= 5 else "sentence"
    assert report["warnings"][0] == f"the corpus has no dev and no test split: cut from train, by {how}"
    counts = {name: entry["utterances"] for name, entry in report["splits"].items()}
    assert sum(counts.values()) == 100
    assert counts == {0: {"train": 80, "dev": 10, "test": 10}, 5: {"train": 60, "dev": 20, "test": 20}}.get(
        speakers, counts
    )
    assert 60 <= counts["train"] <= 85 and 5 <= counts["dev"] <= 20 and 5 <= counts["test"] <= 20
    held = sides(tmp_path / "out", "speaker" if how == "speaker" else "text")
    assert not held["train"] & held["dev"] and not held["train"] & held["test"] and not held["dev"] & held["test"]


def test_all_readings_of_a_sentence_are_on_one_side(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", {None: 60})
    made = [replace(each, text=f"{WORDS[n % 12]} {'ƙasa' if n % 2 else 'Kasa!'}") for n, each in enumerate(made)]
    prepare(made, tmp_path / "out")
    folded = {name: {text.split()[0] for text in texts} for name, texts in sides(tmp_path / "out", "text").items()}
    assert sum(map(len, folded.values())) == 12 and all(folded.values())


def test_the_cut_is_the_same_everywhere_and_moves_with_the_seed(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", {None: 40})
    prepare(made, tmp_path / "one")
    prepare(made[::-1], tmp_path / "two")
    prepare(made, tmp_path / "three", PrepareSettings(seed=1))
    assert sides(tmp_path / "one", "id") == sides(tmp_path / "two", "id") != sides(tmp_path / "three", "id")


def test_a_missing_dev_is_cut_from_train_and_never_from_test(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", {"train": 30, "test": 10})
    warnings = prepare(made, tmp_path / "out").report["warnings"]
    by_split = sides(tmp_path / "out", "id")
    assert by_split["test"] == {f"test-{n}" for n in range(10)}
    assert len(by_split["dev"]) == 3 and all(name.startswith("train") for name in by_split["dev"])
    assert "the corpus has no dev split: cut from train, by sentence" in warnings


def test_a_missing_test_is_reported_and_rows_without_split_are_train(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", {"train": 3, "dev": 2, None: 2})
    prepared = prepare(made, tmp_path / "out")
    assert {name: len(split) for name, split in prepared.splits.items()} == {"train": 5, "dev": 2}
    assert any("no test split" in warning for warning in prepared.report["warnings"])
    assert any(warning.startswith("2 utterances name no split") for warning in prepared.report["warnings"])


def test_a_cut_whose_only_clip_is_bad_is_made_anew(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", {None: 6})
    places, _, _ = splits.assign(made, [each.text for each in made], given={}, seed=0)
    Path(made[places.index("dev")].audio).write_text("no audio")
    prepared = prepare(made, tmp_path / "out")
    assert prepared.report["utterances"] == {"in": 6, "kept": 5, "refused": 1}
    assert {name: len(split) for name, split in prepared.splits.items()} == {"train": 3, "dev": 1, "test": 1}
    with pytest.raises(UserError, match="nothing for dev"):
        prepare(made[:1] if places[0] == "train" else made[1:2], tmp_path / "one")


def test_cuts_of_any_size_leave_no_side_empty() -> None:
    draw = np.random.default_rng(0)
    for _ in range(300):
        count = int(draw.integers(3, 60))
        speakers = draw.zipf(1.5, count) % 9
        made = [Utterance(str(n), "", "", None, f"s{speakers[n]}" if speakers[n] else "") for n in range(count)]
        texts = [str(number) for number in range(count)]
        for given in (set(), {"train"}):
            labelled = [replace(each, split="train") for each in made] if given else made
            places, cut, _ = splits.assign(labelled, texts, given={"": given}, seed=0)
            assert set(places) == {"train"} | cut
            known = {each.speaker for each in made} - {""}
            if len(known) >= 5:
                for speaker in known:
                    assert (
                        len({place for place, each in zip(places, made, strict=True) if each.speaker == speaker}) == 1
                    )
