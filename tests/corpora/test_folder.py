"""The folder corpus: tables as people and programs really write them."""

import json
import unicodedata
from pathlib import Path

import pytest

from hausa_asr.corpora.folder import utterances
from hausa_asr.errors import UserError
from hausa_asr.utterance import Utterance


def folder_with(path: Path, table: str, content: str | bytes, clips: tuple[str, ...] = ()) -> Path:
    path.mkdir(exist_ok=True)
    for clip in clips:
        (path / clip).parent.mkdir(parents=True, exist_ok=True)
        (path / clip).touch()
    (path / table).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(path: Path, **columns: str) -> dict[str, str]:
    return {utterance.id: utterance.text for utterance in utterances(path, **columns)}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "semicolon"])
def test_all_columns_of_every_kind_of_table(tmp_path: Path, kind: str) -> None:
    rows = [
        ("clips/ƙasa 1.wav", "Ƙasa, mai “ƙyau”", "train", "Audu", "1.5"),
        ("clips/b.wav", "ɗaki", "validation", "", ""),
        ("clips/c.wav", "", "", "Bala", "nan"),
    ]
    names = ("path", "text", "split", "speaker", "duration_s")
    if kind == "jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows]
        table, content = "manifest.jsonl", "\n".join(lines)
    elif kind == "tsv":
        table, content = "manifest.tsv", "\n".join("\t".join(row) for row in (names, *rows))
    else:
        mark = "," if kind == "csv" else ";"
        table, content = "manifest.csv", "\n".join(mark.join(f'"{cell}"' for cell in row) for row in (names, *rows))
    path = folder_with(tmp_path / "corpus", table, content, ("clips/ƙasa 1.wav",))
    assert list(utterances(path)) == [
        Utterance(
            id="clips/ƙasa 1.wav",
            audio=str(path / "clips/ƙasa 1.wav"),
            text="Ƙasa, mai “ƙyau”",
            split="train",
            speaker="Audu",
            duration_s=1.5,
            corpus="corpus",
        ),
        Utterance("clips/b.wav", str(path / "clips/b.wav"), "ɗaki", "dev", corpus="corpus"),
        Utterance("clips/c.wav", str(path / "clips/c.wav"), "", None, "Bala", corpus="corpus"),
    ]
    assert list(utterances(path / table)) == list(utterances(path, manifest=table)) == list(utterances(str(path)))


def test_columns_can_be_named_and_a_table_can_lie_elsewhere(tmp_path: Path) -> None:
    path = folder_with(tmp_path / "audio", "a.wav", "")
    folder_with(tmp_path / "lists", "one.tsv", "file\tsentence\na.wav\tina kwana\n")
    listed = list(utterances(path, tmp_path / "lists/one.tsv", audio_column="file", text_column="sentence"))
    assert [(utterance.audio, utterance.text) for utterance in listed] == [(str(path / "a.wav"), "ina kwana")]


def test_quotation_marks_in_tables_lose_no_row(tmp_path: Path) -> None:
    tsv = 'path\ttext\na.wav\t"Ina kwana\nb.wav\tlafiya" lau\nc.wav\tta ce "zo"\n'
    assert texts(folder_with(tmp_path / "tsv", "m.tsv", tsv)) == {
        "a.wav": '"Ina kwana',
        "b.wav": 'lafiya" lau',
        "c.wav": 'ta ce "zo"',
    }
    quoted = '"path"\t"text"\n"a.wav"\t"ta ce ""zo"""\n'
    assert texts(folder_with(tmp_path / "quoted", "m.tsv", quoted)) == {"a.wav": 'ta ce "zo"'}
    doubled = 'path,text\na.wav,"ta ce ""zo"", ya zo"\nb.wav,"layi\nbiyu"\n'
    assert texts(folder_with(tmp_path / "csv", "m.csv", doubled)) == {
        "a.wav": 'ta ce "zo", ya zo',
        "b.wav": "layi\nbiyu",
    }
    stray = 'path,text\na.wav,"ina kwana\nb.wav,lafiya\nc.wav,"madalla"\n'
    assert list(texts(folder_with(tmp_path / "stray", "m.csv", stray))) == ["a.wav", "b.wav", "c.wav"]


def test_an_unquoted_comma_never_cuts_a_transcript_short(tmp_path: Path) -> None:
    last = folder_with(tmp_path / "last", "m.csv", "path,text\na.wav,ina kwana, lafiya, lau\nb.wav,i\n")
    assert texts(last) == {"a.wav": "ina kwana, lafiya, lau", "b.wav": "i"}
    middle = folder_with(tmp_path / "middle", "m.csv", "path,text,split\na.wav,ina, kwana,train\nb.wav,i,train\n")
    assert texts(middle) == {"a.wav": "", "b.wav": "i"}  # refused as without transcript, rather than guessed


def test_rows_that_are_broken_are_still_yielded(tmp_path: Path) -> None:
    lines = '{"path": "a.wav", "text": "daya"}\nnot json\n[1]\n\n{"text": "biyu"}\n{"path": "c.wav", "text": null}\n'
    listed = list(utterances(folder_with(tmp_path / "jsonl", "m.jsonl", lines)))
    assert [(utterance.id, bool(utterance.audio), utterance.text) for utterance in listed] == [
        ("a.wav", True, "daya"),
        ("m.jsonl line 2", False, ""),
        ("m.jsonl line 3", False, ""),
        ("m.jsonl line 5", False, "biyu"),
        ("c.wav", True, ""),
    ]
    listed = list(
        utterances(folder_with(tmp_path / "csv", "m.csv", "path,text,split\na.wav\n\n,b,train\nc.wav,c,Other\n"))
    )
    assert [(utterance.id, utterance.text, utterance.split) for utterance in listed] == [
        ("a.wav", "", None),
        ("m.csv row 4", "b", "train"),
        ("c.wav", "c", "Other"),  # refused by name in `prepare`
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_line_ends_of_spreadsheets(tmp_path: Path, encoding: str, newline: str) -> None:
    content = newline.join(("path\ttext", "a.wav\tƙasa", "b.wav\tɗaki", "")).encode(encoding)
    assert texts(folder_with(tmp_path / "c", "m.tsv", content)) == {"a.wav": "ƙasa", "b.wav": "ɗaki"}


def test_clips_are_found_however_their_names_are_written(tmp_path: Path) -> None:
    clips = ("sub/a b.wav", unicodedata.normalize("NFD", "é.wav"), 'it\'s "x".wav', str(tmp_path / "else.wav"))
    names = ("sub\\a b.wav", unicodedata.normalize("NFC", "é.wav"), 'it\'s "x".wav', str(tmp_path / "else.wav"))
    content = "path\ttext\n" + "".join(f"{name}\ta\n" for name in names)
    listed = list(utterances(folder_with(tmp_path / "c", "m.tsv", content, clips)))
    assert [Path(utterance.audio) for utterance in listed] == [tmp_path / "c" / clip for clip in clips]


def test_mistakes_are_reported_with_what_to_do(tmp_path: Path) -> None:
    for name, table, content, message in (
        ("none", "readme.txt", "", "no table of transcripts"),
        ("column", "m.csv", "file,text\na.wav,b\n", "no column 'path'; it has: file, text"),
        ("text", "m.jsonl", '{"path": "a.wav", "sentence": "b"}\n', "no column 'text'; it has: path, sentence"),
        ("empty", "m.csv", "", "no column 'path'; it has: none"),
        ("latin", "m.csv", "path,text\na.wav,caf\xe9\n".encode("latin-1"), "not in UTF-8"),
    ):
        path = folder_with(tmp_path / name, table, content)
        with pytest.raises(UserError) as error:
            utterances(path)  # before the first utterance is asked for
        assert message in error.value.what and error.value.fix, name
    path = folder_with(tmp_path / "two", "a.csv", "path,text\n")
    folder_with(path, "b.tsv", "path\ttext\n")
    with pytest.raises(UserError, match=r"several tables: a\.csv, b\.tsv"):
        utterances(path)
    assert list(utterances(path, "b.tsv")) == []
    for wrong in ("c.csv", "nowhere"):
        with pytest.raises(UserError, match="no such table"):
            utterances(path, wrong)
    with pytest.raises(UserError, match="no such folder"):
        utterances(tmp_path / "nowhere")
