"""Where clips come from: paths, URLs and rows of Arrow files, all as something that can be decoded."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from hausa_asr.audio import sources
from hausa_asr.audio.sources import fetch, locator, parse_locator, stamp
from hausa_asr.errors import UserError


def arrow_file(path: Path, column: str = "audio") -> Path:
    rows = [
        {"bytes": b"one", "path": "a.mp3"},
        {"bytes": None, "path": "/clips/b.wav"},
        {"bytes": None, "path": None},
    ] + [{"bytes": str(row).encode(), "path": ""} for row in range(3, 40)]
    table = pa.table({column: rows, "raw": [b"raw"] * 40, "path": ["memory://arrow/c.wav"] * 40})
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return path


def put(url: str, content: bytes) -> str:
    with fsspec.open(url, "wb") as file:
        file.write(content)
    return url


def test_a_local_path_stays_a_path_and_is_stamped_by_size_and_time(tmp_path: Path) -> None:
    clip = tmp_path / "a ƙ#.wav"
    clip.write_bytes(b"123")
    assert fetch(str(clip)) == str(clip)
    assert fetch(f"file://{clip}") == str(clip)
    before = stamp(str(clip))
    assert before == (3, clip.stat().st_mtime_ns) == stamp(f"file://{clip}")
    os.utime(clip, ns=(1, 1))
    assert stamp(str(clip)) != before
    assert stamp(str(tmp_path / "none")) == stamp("a\0b") == ()
    assert fetch(str(tmp_path / "none")) == str(tmp_path / "none")  # the decoder says what is missing


def test_a_url_gives_its_bytes_and_a_stamp_that_json_holds() -> None:
    url = put("memory://sources/a b#ƙ.wav", b"sound")
    assert fetch(url) == b"sound"
    before = stamp(url)
    assert before[0] == 5
    assert json.loads(json.dumps(before)) == list(before)
    put(url, b"other")
    assert stamp(url) != before
    assert stamp("memory://sources/none.wav") == ()
    with pytest.raises(FileNotFoundError):
        fetch("memory://sources/none.wav")


def test_a_row_of_a_table_is_found_whatever_its_file_and_column_are_called(tmp_path: Path) -> None:
    path = arrow_file(tmp_path / "a #b%/../c d.arrow".replace("/../", "_"), "au/dio ƙ")
    put("memory://arrow/c.wav", b"by url")
    first = locator(path, "au/dio ƙ", 0)
    assert parse_locator(first) == (str(path), "au/dio ƙ", 0)
    assert fetch(first) == b"one"
    assert fetch(locator(path, "au/dio ƙ", 1)) == "/clips/b.wav"
    assert fetch(locator(path, "raw", 39)) == b"raw"
    assert fetch(locator(path, "path", 5)) == b"by url"
    assert stamp(first)[:2] == stamp(str(path))
    assert stamp(first) != stamp(locator(path, "au/dio ƙ", 1))
    assert stamp(locator(tmp_path / "none.arrow", "audio", 0)) == stamp("arrow://nonsense") == ()
    for wrong in (locator(path, "au/dio ƙ", 2), locator(path, "au/dio ƙ", 40), locator(path, "other", 0), "arrow://x"):
        with pytest.raises(FileNotFoundError):
            fetch(wrong)
    (tmp_path / "junk.arrow").write_bytes(b"junk" * 100)
    with pytest.raises(OSError, match="not an Arrow file"):
        fetch(locator(tmp_path / "junk.arrow", "audio", 0))


def test_many_threads_read_one_table(tmp_path: Path) -> None:
    path = arrow_file(tmp_path / "a.arrow")
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(lambda row: fetch(locator(path, "audio", row)), list(range(3, 40)) * 20))
    assert contents == [str(row).encode() for row in range(3, 40)] * 20


def test_a_table_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    path = arrow_file(tmp_path / "a.arrow")
    assert fetch(locator(path, "audio", 0)) == b"one"
    other = tmp_path / "b.arrow"
    table = pa.table({"audio": [b"two"]})
    with pa.OSFile(str(other), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    other.rename(path)
    assert fetch(locator(path, "audio", 0)) == b"two"


def test_a_driver_that_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.get_filesystem_class", missing)
    for protocol, extra in (("s3", "s3"), ("gs", "gs")):
        with pytest.raises(UserError) as error:
            fetch(f"{protocol}://bucket/a.wav")
        assert error.value.fix == f"Run `pip install 'hausa-asr-sweeps[{extra}]'`."
        with pytest.raises(UserError):
            stamp(f"{protocol}://bucket/a.wav")
    monkeypatch.undo()
    with pytest.raises(UserError, match="Protocol not known"):
        fetch("nonsense://a")


def test_a_store_that_fails_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    url = put("memory://sources/again.wav", b"sound")
    read = MemoryFileSystem.cat_file
    failures = [ConnectionError("reset"), RuntimeError("EndpointConnectionError")]

    def flaky(*arguments: object) -> bytes:
        if failures:
            raise failures.pop()
        return read(*arguments)

    monkeypatch.setattr(sources, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(MemoryFileSystem, "cat_file", flaky)
    assert fetch(url) == b"sound"
    failures += [RuntimeError("EndpointConnectionError")] * 3
    with pytest.raises(OSError, match="EndpointConnectionError"):
        fetch(url)
    assert not failures


def test_places_are_joined_and_listed_alike_on_disks_and_in_stores(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.csv").touch()
    for folder in (str(tmp_path), "memory://listed"):
        put(sources.join(folder, "a.csv"), b"")
        put(sources.join(folder, "sub/b.csv"), b"")
        assert sources.files_in(folder) == ["a.csv"]
        assert sources.kind(folder) == sources.kind(sources.join(folder, "sub")) == "folder"
        assert sources.kind(sources.join(folder, "a.csv")) == "file"
        assert sources.kind(sources.join(folder, "none")) == ""
        with pytest.raises(UserError, match="no such file"):
            sources.open_file(sources.join(folder, "none"))
    assert sources.join("s3://b/", "gs://c/d.wav") == "gs://c/d.wav"
    assert sources.join("s3://b/", "/d.wav") == "/d.wav"
    assert not sources.is_url("C://clips/a.wav")
