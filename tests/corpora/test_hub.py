"""Hugging Face datasets in every form that needs no network: their rows, splits and columns."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import datasets
import pytest

from hausa_asr.audio.load import load
from hausa_asr.audio.sources import fetch, stamp
from hausa_asr.corpora.hub import utterances
from hausa_asr.errors import UserError
from helpers import made_up


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


@pytest.mark.parametrize("form", ["parquet", "saved", "audiofolder"])
def test_every_form_gives_the_same_speech(form: str, tmp_path: Path) -> None:
    made = made_up.hub(tmp_path / "some_dataset", form)
    listed = list(utterances(str(made.path)))
    assert Counter(each.split for each in listed) == {"train": 24, "dev": 6, "test": 6}
    assert [each.text for each in listed] == [clip.text for clip in made_up.clips()]
    assert [each.speaker for each in listed] == [clip.voice for clip in made_up.clips()]
    assert len({each.id for each in listed}) == len(listed)
    assert listed[0].audio.startswith("/" if form == "audiofolder" else "arrow:///")
    for each, clip in list(zip(listed, made_up.clips(), strict=True))[::12]:
        source = fetch(each.audio)
        assert len(load(source).samples) == pytest.approx(
            len(made_up.speech(clip.text, clip.voice)) * 16 / 22.05, abs=2
        )
        assert stamp(each.audio)
    assert list(utterances(str(made.path))) == listed
    copies = [file for file in tmp_path.rglob("*") if file.suffix in (".wav", ".flac") and form != "audiofolder"]
    assert not copies


def test_columns_and_splits_by_setting(tmp_path: Path) -> None:
    made = made_up.hub(tmp_path / "d", "saved", text="sentence", speaker="who", splits=("main", "check", "final"))
    listed = list(
        utterances(
            str(made.path),
            text_column="sentence",
            speaker_column="who",
            splits={"train": ["main", "final"], "dev": "check"},
        )
    )
    assert Counter(each.split for each in listed) == {"train": 30, "dev": 6}
    assert listed[0].speaker == made_up.clips()[0].voice
    assert {each.id.split("/")[0] for each in listed} == {"main", "check", "final"}


def test_a_lone_train_says_nothing_about_splits(tmp_path: Path) -> None:
    made = made_up.hub(tmp_path / "d", splits=("train",))
    assert {each.split for each in utterances(str(made.path))} == {None}
    assert {each.split for each in utterances(str(made.path), splits={"train": "train"})} == {"train"}
    file = next(made.path.rglob("*.parquet"))
    assert len(list(utterances(str(file)))) == 24


def test_a_dataset_in_several_files(tmp_path: Path) -> None:
    rows = [{"audio": {"bytes": str(row).encode(), "path": None}, "text": f"{row}"} for row in range(100)]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "d"), num_shards=3)
    assert len(list((tmp_path / "d").glob("*.arrow"))) == 3
    listed = list(utterances(str(tmp_path / "d")))
    assert [fetch(each.audio) for each in listed] == [each.text.encode() for each in listed]
    shuffled = datasets.load_from_disk(str(tmp_path / "d")).shuffle(seed=1)
    shuffled.save_to_disk(str(tmp_path / "shuffled"))
    listed = list(utterances(str(tmp_path / "shuffled")))
    assert [fetch(each.audio) for each in listed] == [each.text.encode() for each in listed]
    assert [each.text for each in listed] != [row["text"] for row in rows]


def test_mistakes_are_reported_with_what_is_there(tmp_path: Path) -> None:
    made = made_up.hub(tmp_path / "d", "saved")
    for settings, message in (
        ({"text_column": "sentence"}, "no column 'sentence'; it has: audio, speaker, text"),
        ({"audio_column": "clip"}, "no column 'clip'; it has: audio, speaker, text"),
        ({"speaker_column": "who"}, "no column 'who'; it has: audio, speaker, text"),
        ({"splits": {"dev": "val"}}, "no split 'val'; it has: train, validation, test"),
    ):
        with pytest.raises(UserError) as error:
            utterances(str(made.path), **settings)
        assert message in error.value.what
        assert error.value.fix and next(iter(settings)) in error.value.fix
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "none", "somebody/no-such-dataset"):
        with pytest.raises(UserError, match="can't be loaded"):
            utterances(str(place))
