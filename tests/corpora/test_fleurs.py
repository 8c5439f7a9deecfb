"""FLEURS in the layouts that it comes in: a folder or a URL, clips packed or not, and as a `datasets` dataset."""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path

import fsspec
import pytest

from hausa_asr.audio.load import load
from hausa_asr.audio.sources import fetch
from hausa_asr.corpora.fleurs import utterances
from hausa_asr.errors import UserError
from hausa_asr.utterance import Utterance
from helpers import made_up


def checked(listed: list[Utterance]) -> list[Utterance]:
    assert Counter(each.split for each in listed) == {"train": 27, "dev": 6, "test": 6}
    assert len({each.id for each in listed}) == len(listed)
    assert {each.speaker for each in listed} == {""}  # and gender is none
    assert listed[0].text == made_up.clips()[0].text  # `transcription`, not the raw one
    for each in listed[:3]:
        seconds = len(load(each.audio).samples) / 16_000
        assert each.duration_s == pytest.approx(seconds, abs=0.01)
    return listed


def test_the_repository_with_its_archives(tmp_path: Path) -> None:
    made = made_up.fleurs(tmp_path / "fleurs")
    listed = checked(list(utterances(str(made.path), tmp_path / "cache")))
    unpacked = sorted((entry.name, entry.stat().st_mtime_ns) for entry in (tmp_path / "cache").iterdir())
    assert len(unpacked) == 3
    assert list(utterances(str(made.path / "data/ha_ng"), tmp_path / "cache")) == listed
    assert sorted((entry.name, entry.stat().st_mtime_ns) for entry in (tmp_path / "cache").iterdir()) == unpacked


def test_the_repository_with_its_archives_unpacked_or_packed_as_one(tmp_path: Path) -> None:
    made = made_up.fleurs(tmp_path / "fleurs", unpacked=True)
    listed = checked(list(utterances(str(made.path), tmp_path / "cache")))
    assert not (tmp_path / "cache").exists()
    with tarfile.open(tmp_path / "ha_ng.tar.gz", "w:gz") as tar:
        tar.add(made.path / "data/ha_ng", "ha_ng")
    again = checked(list(utterances(str(tmp_path / "ha_ng.tar.gz"), tmp_path / "cache")))
    assert [each.id for each in again] == [each.id for each in listed]


def test_the_repository_by_url(tmp_path: Path) -> None:
    made = made_up.fleurs(tmp_path / "fleurs")
    for file in made.path.rglob("*.*"):
        with fsspec.open(f"memory://fleurs/{file.relative_to(made.path)}", "wb") as out:
            out.write(file.read_bytes())
    checked(list(utterances("memory://fleurs", tmp_path / "cache")))


def test_a_datasets_dataset(tmp_path: Path) -> None:
    made = made_up.hub(tmp_path / "saved", "saved", text="transcription", speaker="gender")
    listed = list(utterances(str(made.path), tmp_path / "cache"))
    assert Counter(each.split for each in listed) == {"train": 24, "dev": 6, "test": 6}
    assert listed[0].text == made_up.clips()[0].text
    assert {each.speaker for each in listed} == {""}
    assert isinstance(fetch(listed[0].audio), bytes)


def test_mistakes_are_user_errors(tmp_path: Path) -> None:
    made = made_up.fleurs(tmp_path / "fleurs")
    with pytest.raises(UserError, match=r"no data/yo_ng/train\.tsv"):
        utterances(str(made.path), tmp_path / "cache", locale="yo_ng")
    (made.path / "data/ha_ng/audio/dev.tar.gz").unlink()
    with pytest.raises(UserError, match="clips of dev are missing"):
        utterances(str(made.path), tmp_path / "cache")
    (made.path / "data/ha_ng/dev.tsv").write_text("path\ttext\na.wav\tb\n")
    with pytest.raises(UserError, match="too few columns"):
        utterances(str(made.path), tmp_path / "cache")


def test_a_broken_row_is_yielded_to_be_refused(tmp_path: Path) -> None:
    made = made_up.fleurs(tmp_path / "fleurs", unpacked=True)
    table = made.path / "data/ha_ng/train.tsv"
    table.write_text(table.read_text() + "77\n78\tgone.wav\tx\tina kwana\tx\t0\tMALE\n")
    *_, short, gone = [each for each in utterances(str(made.path), tmp_path / "cache") if each.split == "train"]
    assert (short.audio, short.text) == ("", "")
    assert gone.audio.endswith("/audio/train/gone.wav")
    assert (gone.text, gone.duration_s) == ("ina kwana", None)
