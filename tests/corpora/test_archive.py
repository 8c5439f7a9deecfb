"""Unpacking archives that were made by others: once, completely, and never outside their folder."""

from __future__ import annotations

import gzip
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from hausa_asr.corpora import archive
from hausa_asr.errors import UserError

ROOT = Path(__file__).parents[2]
FILES = {"cv/ha/train.tsv": b"path\tsentence\n", "cv/ha/clips/ƙasa.mp3": os.urandom(50_000), "cv/empty": b""}


def packed(path: Path, files: dict[str, bytes] | None = None) -> Path:
    files = FILES if files is None else files
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name, content in files.items():
                out.writestr(name, content)
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def special(path: Path, *members: tuple[str, bytes, str]) -> Path:
    """A tar of members of any type, each with its name, type and link; an ordinary file holds b"hi"."""
    with tarfile.open(path, "w:gz") as tar:
        for name, type_, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = type_, link
            member.size = 2 if type_ == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"hi"))
    return path


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def inodes(folder: Path) -> Iterator[int]:
    for file in (folder, *folder.rglob("*")):
        yield file.stat().st_ino


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar", "a.zip"])
def test_an_archive_is_unpacked_once(name: str, tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    path = packed(tmp_path / name)
    folder = archive.unpacked(str(path), tmp_path / "cache", lambda *done: reported.append(done))
    assert files_below(folder) == FILES
    assert reported[-1] == (path.stat().st_size, path.stat().st_size)
    made, count = set(inodes(tmp_path / "cache")), len(reported)
    assert archive.unpacked(str(path), tmp_path / "cache", lambda *done: reported.append(done)) == folder
    assert set(inodes(tmp_path / "cache")) == made
    assert len(reported) == count
    os.utime(path, ns=(1, 1))
    assert archive.unpacked(str(path), tmp_path / "cache") != folder


def test_an_archive_in_a_store(tmp_path: Path) -> None:
    with fsspec.open("memory://archives/a.tar.gz", "wb") as file:
        file.write(packed(tmp_path / "a.tar.gz").read_bytes())
    folder = archive.unpacked("memory://archives/a.tar.gz", tmp_path / "cache")
    assert files_below(folder) == FILES
    assert archive.unpacked("memory://archives/a.tar.gz", tmp_path / "cache") == folder


@pytest.mark.parametrize("kind", ["tar.gz", "zip", "tar"])
@pytest.mark.parametrize(
    "name", ["../out.txt", "a/../../out.txt", "/tmp/out-of-archive.txt", "..\\out.txt", "C:\\out.txt"]
)
def test_no_path_leads_out(kind: str, name: str, tmp_path: Path) -> None:
    path = packed(tmp_path / f"bad.{kind}", {"fine.txt": b"", name: b"out"})
    with pytest.raises(UserError, match="not safe") as error:
        archive.unpacked(str(path), tmp_path / "cache")
    assert "leads out of its folder" in str(error.value)
    assert not (tmp_path / "out.txt").exists() and not Path("/tmp/out-of-archive.txt").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_links_and_devices_are_neither_made_nor_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_bytes(b"mine")
    path = special(
        tmp_path / "bad.tar.gz",
        ("link", tarfile.SYMTYPE, str(victim)),
        ("link/file", tarfile.REGTYPE, ""),
        ("up", tarfile.SYMTYPE, ".."),
        ("up/x", tarfile.REGTYPE, ""),
        ("hard", tarfile.LNKTYPE, "../victim/file"),
        ("hard2", tarfile.LNKTYPE, str(victim / "file")),
        ("device", tarfile.CHRTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("fine", tarfile.REGTYPE, ""),
    )
    folder = archive.unpacked(str(path), tmp_path / "cache")
    assert files_below(folder) == {"link/file": b"hi", "up/x": b"hi", "fine": b"hi"}
    assert all(stat.S_ISREG(file.lstat().st_mode) or stat.S_ISDIR(file.lstat().st_mode) for file in folder.rglob("*"))
    assert files_below(victim) == {"file": b"mine"}

    zipped = zipfile.ZipInfo("link")
    zipped.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as out:
        out.writestr(zipped, str(victim))
        out.writestr("link/file", b"hi")
    assert files_below(archive.unpacked(str(tmp_path / "bad.zip"), tmp_path / "cache")) == {"link/file": b"hi"}


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_FREE_BYTES", 1 << 20)
    zeros = {"zeros": bytes(12 << 20)}
    for path in (packed(tmp_path / "a.tar.gz", zeros), packed(tmp_path / "a.zip", zeros)):
        with pytest.raises(UserError, match="swell"):
            archive.unpacked(str(path), tmp_path / "cache")
    # A header that never ends: tarfile would hold all of it in memory.
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 32
    with gzip.open(tmp_path / "header.tar.gz", "wb") as file:
        file.write(header.tobuf() + bytes(12 << 20))
    with pytest.raises(UserError, match="swell"):
        archive.unpacked(str(tmp_path / "header.tar.gz"), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("kind", ["tar.gz", "zip", "tar"])
def test_what_is_cut_short_is_one_clear_error_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    whole = packed(tmp_path / f"whole.{kind}").read_bytes()
    ends = {0, 1, 100, len(whole) // 2, len(whole) - 30, len(whole) - 4} if kind != "tar" else {0, 1, 512, 50_000}
    for end in sorted(ends):
        path = tmp_path / f"cut.{kind}"
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match="cut short or damaged") as error:
            archive.unpacked(str(path), tmp_path / "cache")
        assert error.value.fix and "Download it again" in error.value.fix
    assert list((tmp_path / "cache").iterdir()) == []


def test_damage_is_a_user_error(tmp_path: Path) -> None:
    whole = bytearray(packed(tmp_path / "a.tar.gz").read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    (tmp_path / "bad.tar.gz").write_bytes(bytes(whole))
    with pytest.raises(UserError, match="cut short or damaged"):
        archive.unpacked(str(tmp_path / "bad.tar.gz"), tmp_path / "cache")
    (tmp_path / "page.tar.gz").write_bytes(b"<html>please log in</html>" * 100)
    with pytest.raises(UserError, match="cut short or damaged"):
        archive.unpacked(str(tmp_path / "page.tar.gz"), tmp_path / "cache")
    twice = packed(tmp_path / "twice.tar", {"a": b"1", "a/b": b"2"})
    with pytest.raises(UserError, match="comes twice"):
        archive.unpacked(str(twice), tmp_path / "cache")


def test_mistakes_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        archive.unpacked(str(tmp_path / "none.tar.gz"), tmp_path / "cache")
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match="no archive"):
        archive.unpacked(str(tmp_path / "a.txt"), tmp_path / "cache")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be unpacked here"):
        archive.unpacked(str(packed(tmp_path / "a.tar")), tmp_path / "file")


def test_what_a_killed_unpacking_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar")
    folder = archive.unpacked(str(path), tmp_path / "cache")
    old, fresh = (folder.with_name(f"{folder.name}.partial-{name}") for name in ("old", "new"))
    for left in (old, fresh):
        left.mkdir()
    os.utime(old, (1, 1))
    folder.rename(tmp_path / "away")
    assert archive.unpacked(str(path), tmp_path / "cache") == folder
    assert not old.exists() and fresh.exists()


def test_killed_at_any_moment_nothing_half_done_is_taken_for_the_whole(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar.gz", {f"{index}.mp3": os.urandom(1 << 20) for index in range(4)})
    code = (
        "import os, signal, sys; from pathlib import Path; from hausa_asr.corpora import archive\n"
        "die = lambda done, size: os.kill(os.getpid(), signal.SIGKILL) if done > size // 2 else None\n"
        "archive.unpacked(sys.argv[1], Path(sys.argv[2]), die)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / "cache")], cwd=ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "cache").iterdir()
    assert ".partial-" in left.name and any(left.iterdir())
    assert len(files_below(archive.unpacked(str(path), tmp_path / "cache"))) == 4


def test_two_at_a_time_unpack_one_folder(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar.gz")
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: archive.unpacked(str(path), tmp_path / "cache"), range(4)))
    (folder,) = folders
    assert list((tmp_path / "cache").iterdir()) == [folder]
    assert files_below(folder) == FILES
