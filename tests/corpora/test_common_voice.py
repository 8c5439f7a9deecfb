"""Common Voice as it is published: archive or folder, every version, its splits; nothing of dev or test in train."""

from __future__ import annotations

import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from hausa_asr.audio.load import load
from hausa_asr.corpora.common_voice import utterances
from hausa_asr.errors import UserError
from hausa_asr.utterance import Utterance
from helpers import made_up
from helpers.made_up import CV_COLUMNS, Planted, person


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("cv")
    return made_up.common_voice(folder / "cv-corpus-17.0-2024-03-15-ha.tar.gz")


@pytest.fixture(scope="module")
def unpacked(published: Planted) -> Path:
    folder = published.path.parent / "unpacked"
    with tarfile.open(published.path) as tar:
        tar.extractall(folder, filter="data")
    return folder


def by_split(listed: list[Utterance]) -> dict[str | None, list[str]]:
    return {split: [each.id for each in listed if each.split == split] for split in {each.split for each in listed}}


def test_the_archive_as_downloaded(published: Planted, tmp_path: Path) -> None:
    listed = list(utterances(str(published.path), tmp_path))
    assert Counter(each.split for each in listed) == {"train": 24, "dev": 6, "test": 6}
    first = listed[0]
    assert first.id == "common_voice_ha_26000000.mp3" == Path(first.audio).name
    assert first.text.startswith('"')  # means nothing, and is no quotation of cells
    assert first.speaker in {person(voice) for voice in ("f1", "f2", "f3", "m1", "m2", "m3", "m4", "m5", "m8")}
    assert first.corpus == "common_voice"
    clip = load(first.audio)
    assert clip.source_rate == made_up.RATE
    assert first.duration_s == pytest.approx(len(clip.samples) / 16_000, abs=0.1)
    assert all(each.duration_s for each in listed)
    (folder,) = tmp_path.iterdir()
    made = folder.stat().st_ino, folder.stat().st_mtime_ns
    assert list(utterances(str(published.path), tmp_path)) == listed
    assert [(entry.stat().st_ino, entry.stat().st_mtime_ns) for entry in tmp_path.iterdir()] == [made]


def test_the_folder_at_any_level(unpacked: Path, published: Planted, tmp_path: Path) -> None:
    wanted = [each.id for each in utterances(str(published.path), tmp_path / "cache")]
    renamed = tmp_path / "my_cv"
    shutil.copytree(unpacked / "cv-corpus-17.0-2024-03-15/ha", renamed)
    for place in (unpacked, unpacked / "cv-corpus-17.0-2024-03-15", unpacked / "cv-corpus-17.0-2024-03-15/ha", renamed):
        listed = list(utterances(str(place), tmp_path / "cache"))
        assert [each.id for each in listed] == wanted
        assert Path(listed[0].audio).is_relative_to(place)


def test_versions_without_dev_leave_the_cut_to_the_preparation(tmp_path: Path) -> None:
    made = made_up.common_voice(tmp_path / "cv-corpus-8.0-2022-01-19-ha.tar.gz", version="8.0-2022-01-19", dev=False)
    listed = list(utterances(str(made.path), tmp_path / "cache"))
    assert Counter(each.split for each in listed) == {"train": 24, "test": 6}
    folder = next((tmp_path / "cache").rglob("dev.tsv"))
    folder.unlink()  # version 7 has an empty one, others none
    assert list(utterances(str(made.path), tmp_path / "cache")) == listed


def test_extra_clips_are_those_that_dev_and_test_do_not_know(published: Planted, tmp_path: Path) -> None:
    plain = list(utterances(str(published.path), tmp_path))
    more = list(utterances(str(published.path), tmp_path, extra=["other", "validated"]))
    added = [each for each in more if each not in plain]
    assert [each.id for each in added] == [f"common_voice_ha_3000000{index}.mp3" for index in range(3)]
    assert {each.split for each in added} == {"train"}
    assert len({each.id for each in more}) == len(more)


def test_languages_are_chosen_and_never_mixed(tmp_path: Path) -> None:
    both = made_up.common_voice(tmp_path / "both.tar.gz", locales=("ha", "yo"))
    listed = list(utterances(str(both.path), tmp_path / "cache", locale="yo"))
    assert all("/yo/clips/" in each.audio for each in listed)
    with pytest.raises(UserError, match="no language 'ig'; it has: ha, yo"):
        utterances(str(both.path), tmp_path / "cache", locale="ig")
    other = next((tmp_path / "cache").glob("both-*")) / "cv-corpus-17.0-2024-03-15/yo"
    shutil.copytree(other, tmp_path / "alone")
    with pytest.raises(UserError, match="of the language yo"):
        utterances(str(tmp_path / "alone"), tmp_path / "cache")


def test_rows_as_people_really_wrote_them(tmp_path: Path) -> None:
    folder = tmp_path / "ha"
    folder.mkdir()
    rows = [
        "client_id\tpath\tsentence\tup_votes",
        'a\tone.mp3\t"Ina kwana\t2',
        'a\ttwo\tya ce "zo\u2028nan"\t2',
        "b\t../../../etc/three.mp3\tlafiya",
        "\t\tbabu\t0",
        "",
    ]
    (folder / "train.tsv").write_bytes("\r\n".join(rows).encode("utf-8-sig"))
    listed = list(utterances(str(folder), tmp_path))
    assert [(each.id, each.text, each.speaker) for each in listed] == [
        ("one.mp3", '"Ina kwana', "a"),
        ("two.mp3", 'ya ce "zo\u2028nan"', "a"),
        ("three.mp3", "lafiya", "b"),
        ("train.tsv row 5", "babu", ""),
    ]
    assert listed[2].audio == str(folder / "clips/three.mp3")
    assert listed[3].audio == ""


def test_mistakes_are_user_errors(tmp_path: Path) -> None:
    (tmp_path / "ha").mkdir()
    for place, message in ((tmp_path / "ha", "no Common Voice"), (tmp_path / "none", "no such folder")):
        with pytest.raises(UserError, match=message):
            utterances(str(place), tmp_path / "cache")
    (tmp_path / "ha/train.tsv").write_text("file\ttext\na\tb\n")
    with pytest.raises(UserError, match="no column 'path'; it has: file, text"):
        utterances(str(tmp_path / "ha"), tmp_path / "cache")
    (tmp_path / "again/ha").mkdir(parents=True)
    (tmp_path / "again/ha/train.tsv").touch()
    with pytest.raises(UserError, match="several Common Voices"):
        utterances(str(tmp_path), tmp_path / "cache")
    assert "sentence_domain" in CV_COLUMNS
