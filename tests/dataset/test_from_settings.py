"""From settings to a prepared dataset: every corpus end to end, several joined, and what the model card says."""

from __future__ import annotations

import functools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import pytest

from hausa_asr import cli
from hausa_asr.dataset.from_settings import _origin, _short_hash, _utterances, prepared_dataset, seconds_and_fingerprint
from hausa_asr.errors import UserError
from hausa_asr.export import card_data
from hausa_asr.settings.data import DataSettings
from hausa_asr.settings.load import load
from hausa_asr.utterance import Utterance
from helpers import made_up


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    made_up.common_voice(folder / "cv.tar.gz")
    made_up.fleurs(folder / "fleurs")
    made_up.hub(folder / "hub")
    made_up.hub(folder / "lone", splits=("train",))
    made_up.folder(folder / "folder")
    return folder


@pytest.fixture
def served() -> Iterator[Callable[[Path], str]]:
    """A folder as a store on the network, which other processes can read too."""
    servers = []

    def serve(folder: Path) -> str:
        handler = functools.partial(_Quiet, directory=str(folder))
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


def settings(**data: Any) -> DataSettings:
    return load(None, [f"data={json.dumps(data)}"], {}).data


def listed(tmp_path: Path, **data: Any) -> list[Utterance]:
    return list(_utterances(settings(**data).absolute(), tmp_path / "cache", None))


@pytest.mark.parametrize(
    ("kind", "path"),
    [("common_voice", "cv.tar.gz"), ("fleurs", "fleurs"), ("hub", "hub"), ("folder", "folder"), ("folder", "http")],
)
def test_every_corpus_becomes_a_prepared_dataset(
    kind: str, path: str, corpora: Path, tmp_path: Path, served: Callable[[Path], str]
) -> None:
    place = str(corpora / path)
    if path == "http":
        place = served(corpora / "folder") + "/table.csv"
    data = settings(corpus=kind, path=place, allow_overlap=["sentence"])  # of two readings, FLEURS may have both
    assert seconds_and_fingerprint(data, tmp_path / "_data") == ({}, "")
    made = prepared_dataset(data, tmp_path / "_data")
    seconds, fingerprint = seconds_and_fingerprint(data, tmp_path / "_data")
    assert seconds == pytest.approx(made.seconds, rel=0.01) and fingerprint == made.fingerprint, "as a plan asks for"
    train = 27 if kind == "fleurs" else 24
    assert {name: len(split) for name, split in made.splits.items()} == {"train": train, "dev": 6, "test": 6}
    assert made.report["origin"]["corpus"] == kind
    assert made.report["origin"]["path"] == place
    assert made.path.parent == tmp_path / "_data"
    assert {example.text for example in made.splits["test"]} == {c.text for c in made_up.clips() if c.split == "test"}
    assert prepared_dataset(data, tmp_path / "_data").reused


def test_common_voice_without_dev_has_one_cut_from_train_by_speaker(tmp_path: Path) -> None:
    made = made_up.common_voice(tmp_path / "cv.tar.gz", version="8.0-2022-01-19", dev=False)
    prepared = prepared_dataset(settings(corpus="common_voice", path=str(made.path)), tmp_path / "_data")
    speakers = {name: {example.speaker for example in split} for name, split in prepared.splits.items()}
    assert len(prepared.splits["test"]) == 6
    assert speakers["dev"] and not speakers["dev"] & (speakers["train"] | speakers["test"])


def test_planted_leaks_and_bad_clips_of_an_archive_are_found(tmp_path: Path) -> None:
    planted = made_up.common_voice(tmp_path / "cv.tar.gz", leaks=True, bad=True)
    data = {"corpus": "common_voice", "path": str(planted.path)}
    with pytest.raises(UserError, match="overlap") as error:
        prepared_dataset(settings(**data), tmp_path / "_data")
    for kind in ("clip", "sentence", "speaker", "audio"):
        assert f"{kind}: " in error.value.what
    made = prepared_dataset(settings(**data, overlap="drop"), tmp_path / "_data")
    assert {name: len(split) for name, split in made.splits.items()} == {"train": 24, "dev": 6, "test": 6}
    assert not {example.id for example in made.splits["train"]} & set(planted.leaks.values())
    refused = [json.loads(line) for line in (made.path / "refused.jsonl").read_text().splitlines()]
    reasons = {each["id"]: each["reason"] for each in refused}
    assert {clip: reasons[clip] for clip in planted.bad.values()} == {clip: why for why, clip in planted.bad.items()}
    assert len(list((tmp_path / "_data/archives").iterdir())) == 1


def test_joined_corpora_keep_their_names_and_their_ids_apart(corpora: Path, tmp_path: Path) -> None:
    utterances = listed(
        tmp_path,
        join=[
            {"corpus": "common_voice", "path": str(corpora / "cv.tar.gz")},
            {"corpus": "folder", "name": "mine", "path": str(corpora / "folder"), "use": ["train", "test"]},
            {"corpus": "folder", "name": "same", "path": str(corpora / "folder"), "use": ["train"]},
            {"corpus": "hub", "path": str(corpora / "lone"), "use": ["train"]},
        ],
    )
    assert Counter((each.corpus, each.split) for each in utterances) == {
        ("common_voice", "train"): 24,
        ("common_voice", "dev"): 6,
        ("common_voice", "test"): 6,
        ("mine", "train"): 24,
        ("mine", "test"): 6,
        ("same", "train"): 24,
        ("hub", "train"): 24,
    }
    assert len({each.id for each in utterances}) == len(utterances)
    assert all(each.id.startswith(f"{each.corpus}/") for each in utterances)
    speakers = {each.corpus: each.speaker for each in utterances}
    assert speakers["mine"].startswith("mine/")
    assert len(speakers["common_voice"]) == 128  # a hash: the same person in any other corpus that has it


def test_a_share_is_of_train_and_a_larger_one_holds_the_smaller(corpora: Path, tmp_path: Path) -> None:
    def train(share: float) -> set[str]:
        part = {"corpus": "common_voice", "path": str(corpora / "cv.tar.gz"), "share": share}
        utterances = listed(tmp_path, join=[part])
        assert Counter(each.split for each in utterances)["test"] == 6
        return {each.id for each in utterances if each.split == "train"}

    half, most, whole = train(0.5), train(0.8), train(1.0)
    assert half < most < whole
    assert 6 <= len(half) <= 18
    assert train(0.5) == half


def test_a_corpus_without_splits_goes_where_it_is_used(corpora: Path, tmp_path: Path) -> None:
    def used(use: list[str]) -> set[str | None]:
        return {
            each.split for each in listed(tmp_path, join=[
                {"corpus": "folder", "path": str(corpora / "folder")},
                {"corpus": "hub", "path": str(corpora / "lone"), "use": use},
            ]) if each.corpus == "hub"
        }  # fmt: skip

    assert used(["train"]) == {"train"}
    assert used(["test"]) == {"test"}
    assert used(["train", "dev", "test"]) == {None}
    with pytest.raises(UserError, match="names no splits"):
        used(["train", "dev"])
    first = {"corpus": "folder", "path": str(corpora / "folder")}
    without_dev = {"corpus": "hub", "path": str(corpora / "hub"), "use": ["dev"], "splits": {"train": "train"}}
    with pytest.raises(UserError, match="no utterances in dev"):
        listed(tmp_path, join=[first, without_dev])


def test_joined_corpora_are_in_the_report_and_on_the_card(corpora: Path, tmp_path: Path) -> None:
    parts = [
        {"corpus": "common_voice", "path": str(corpora / "cv.tar.gz")},
        {"corpus": "hub", "name": "naija", "path": str(corpora / "lone"), "use": ["train"], "share": 0.5},
    ]
    data = settings(join=parts, allow_overlap=["clip", "sentence", "speaker", "audio"])
    made = prepared_dataset(data, tmp_path / "_data")
    assert made.path.name.startswith("joined-")
    origin = made.report["origin"]
    assert [(part["name"] if "name" in part else part["corpus"], part["share"]) for part in origin["join"]] == [
        ("common_voice", 1.0),
        ("naija", 0.5),
    ]
    text = card_data.of_data(made.report)
    assert "`cv.tar.gz + naija`" in text
    assert "| naija | hub | 50% | train |" in text
    assert str(corpora) not in text
    assert not card_data.is_demo(made.report)
    assert card_data.is_demo({"origin": {"join": [{"corpus": "demo"}]}})
    assert not card_data.is_demo({"origin": {"join": [{"corpus": "demo"}, {"corpus": "folder"}]}})
    assert not card_data.is_demo({})


def test_the_folder_is_named_by_where_speech_comes_from_and_not_by_what_is_selected(corpora: Path) -> None:
    def name(**data: Any) -> str:
        return _short_hash(_origin(settings(corpus="folder", path=str(corpora / "folder"), **data)))

    plain = name()
    assert plain == name(min_s=1.0) == name(max_s=9.0) == name(seed=3) == name(overlap="drop")
    assert plain == name(allow_overlap=["clip"])
    assert plain != name(text_column="text2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "common_voice", "--path", "cut.tar.gz"], "cut short or damaged"),
        (["--corpus", "common_voice", "--path", "none.tar.gz"], "no such file"),
        (["--corpus", "common_voice", "--path", "folder"], "no Common Voice"),
        (["--corpus", "fleurs", "--path", "folder"], "no FLEURS"),
        (["--corpus", "hub", "--path", "hub", "--text-column", "sentence"], "it has: audio, speaker, text"),
        (["--path", "memory://nowhere/at/all"], "no such folder"),
        (["--path", "folder", "--overlap", "maybe"], "'refuse' or 'drop'"),
        (["--path", "folder", "--allow-overlap", "clip,voice"], "'sentence'"),
        (["--corpus", "nonsense", "--path", "folder"], "'common_voice'"),
    ],
)
def test_a_mistake_is_one_clear_error_with_exit_code_2(
    arguments: list[str], message: str, corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (corpora / "cut.tar.gz").write_bytes((corpora / "cv.tar.gz").read_bytes()[:50_000])
    monkeypatch.chdir(corpora)
    with pytest.raises(SystemExit) as ended:
        cli.main(["prepare", *arguments, "--set", f"storage={tmp_path}"])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_the_command_line_reaches_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[DataSettings] = []

    def stop(config: Any, out: Path | None = None) -> None:
        seen.append(config.data)
        raise UserError("enough")

    monkeypatch.setattr(cli, "_prepared", stop)
    monkeypatch.chdir(tmp_path)
    for arguments in (
        "--corpus hub --path org/voices --subset hausa --text-column sentence --speaker-column who --overlap drop "
        "--allow-overlap clip,sentence --allow-overlap speaker",
        "--corpus common_voice --path s3://b/cv.tar.gz --locale ha",
        "--path clips",
    ):
        with pytest.raises(SystemExit):
            cli.main(["prepare", *arguments.split()])
    hub, voice, clips = seen
    assert (hub.path, hub.subset, hub.text_column, hub.speaker_column) == ("org/voices", "hausa", "sentence", "who")
    assert (hub.overlap, hub.allow_overlap) == ("drop", ["clip", "sentence", "speaker"])
    assert (voice.corpus, voice.path, voice.locale) == ("common_voice", "s3://b/cv.tar.gz", "ha")
    assert (clips.corpus, clips.path) == ("folder", str(tmp_path / "clips"))
