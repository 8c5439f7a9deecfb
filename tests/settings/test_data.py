"""The settings of the data: what each corpus needs, what joined corpora may be, and which places are relative."""

from __future__ import annotations

from pathlib import Path

import pytest

from hausa_asr.errors import UserError
from hausa_asr.settings.load import load, make_absolute
from hausa_asr.settings.sweep import SweepConfig

JOINED = """
data:
  join:
    - {corpus: common_voice, path: cv.tar.gz}
    - {corpus: hub, name: naija, path: org/voices, subset: hausa, share: 0.25, use: [train], text_column: sentence}
    - {corpus: folder, path: s3://bucket/mine}
  overlap: drop
  allow_overlap: [sentence, speaker]
"""


def joined(tmp_path: Path) -> SweepConfig:
    (tmp_path / "joined.yaml").write_text(JOINED)
    return load(tmp_path / "joined.yaml", environment={})


def test_joined_corpora_are_read_and_survive_being_saved(tmp_path: Path) -> None:
    config = joined(tmp_path)
    assert [part.called for part in config.data.corpora] == ["common_voice", "naija", "folder"]
    assert [part.share for part in config.data.corpora] == [1.0, 0.25, 1.0]
    assert (config.data.overlap, config.data.allow_overlap) == ("drop", ["sentence", "speaker"])
    (tmp_path / "saved.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert load(tmp_path / "saved.yaml", environment={}) == config
    alone = load(None, ["data.corpus=hub", "data.path=a/b", "data.name=mine"], {}).data
    assert [(part.called, part.path, part.use) for part in alone.corpora] == [("mine", "a/b", ["train", "dev", "test"])]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data.corpus=folder"], "needs path"),
        (["data.corpus=common_voice"], "the .tar.gz as downloaded"),
        (["data.corpus=hub"], "a dataset's id"),
        (["data.corpus=comon_voice", "data.path=a"], "'common_voice'"),
        (["data.corpus=folder", "data.path=a", "data.locale=ha"], "locale is a setting of common_voice, fleurs"),
        (["data.corpus=hub", "data.path=a", "data.splits={valid: x}"], "'train', 'dev' or 'test'"),
        (["data.corpus=common_voice", "data.path=a", "data.extra=[invalidated]"], "'other' or 'validated'"),
        (["data.join=[{corpus: demo}, {corpus: demo}]"], "two joined corpora are called demo"),
        (["data.join=[{corpus: demo}]", "data.path=a"], "with join, give path in its entries"),
        (["data.join=[{corpus: demo, use: [dev]}]"], "no joined corpus is used for train"),
        (["data.join=[{corpus: demo, use: []}]"], "at least 1"),
        (["data.join=[{corpus: demo, share: 0}]"], "greater than 0"),
        (["data.join=[{corpus: demo, shar: 0.5}]"], "data.join.0.shar: no such setting; did you mean share?"),
        (["data.overlap=ignore"], "'refuse' or 'drop'"),
        (["data.allow_overlap=[voice]"], "'clip', 'sentence', 'speaker' or 'audio'"),
        (["data.min_s=5", "data.max_s=2"], "min_s must be below max_s"),
    ],
)
def test_mistakes_are_reported(settings: list[str], words: str) -> None:
    with pytest.raises(UserError) as error:
        load(None, settings, {})
    assert words in str(error.value)


def test_local_places_become_absolute_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_absolute(joined(tmp_path), in_job=False)
    assert [part.path for part in config.data.corpora] == [f"{tmp_path}/cv.tar.gz", "org/voices", "s3://bucket/mine"]
    assert make_absolute(config, in_job=True) == config
    (tmp_path / "org/voices").mkdir(parents=True)
    config = make_absolute(load(None, ["data.corpus=hub", "data.path=org/voices"], {}), in_job=False)
    assert config.data.path == f"{tmp_path}/org/voices"
    settings = ["data.corpus=folder", "data.path=a", "data.manifest=b.csv"]
    assert make_absolute(load(None, settings, {}), in_job=False).data.manifest == f"{tmp_path}/b.csv"
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.csv").touch()
    assert make_absolute(load(None, settings, {}), in_job=False).data.manifest == "b.csv"
    remote = ["data.corpus=folder", "data.path=gs://b/a", "data.manifest=b.csv"]
    assert make_absolute(load(None, remote, {}), in_job=False).data.manifest == "b.csv"


def test_in_a_ray_job_relative_places_of_data_are_refused(tmp_path: Path) -> None:
    config = joined(tmp_path)
    with pytest.raises(UserError) as error:
        make_absolute(config, in_job=True)
    message = str(error.value)
    assert "data.join.0.path: cv.tar.gz" in message
    assert "org/voices" not in message and "s3://bucket" not in message
    with pytest.raises(UserError, match=r"data\.prepared: mine"):
        make_absolute(load(None, ["data.prepared=mine"], {}), in_job=True)
