"""Files, folders, fetching and leases, on a disk and on a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hausa_asr.errors import UserError
from hausa_asr.storage import address, fetched, folders, lease, objects, retry
from hausa_asr.storage.address import here, portable
from hausa_asr.storage.fetched import at_hand
from hausa_asr.storage.folders import MANIFEST, Digests, drop_file, manifest, put
from helpers.s3_server import S3Server


def a_folder(folder: Path, **files: str) -> Path:
    for name, content in {"a.txt": "one", "below/b.txt": "two", **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def downloads(scratch: Path) -> list[int]:
    log = scratch / ".fetched/log.jsonl"
    return [json.loads(line)["bytes"] for line in log.read_text().splitlines()] if log.is_file() else []


def test_names_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert address.absolute("s3://bucket/runs/") == "s3://bucket/runs"
    assert address.absolute("file:///data/runs") == "/data/runs" and not address.is_remote("file:///data/runs")
    assert address.absolute("runs") == str(tmp_path / "runs")
    assert here("/data/runs") == Path("/data/runs"), "on a disk nothing is anywhere else"
    twin = here("s3://bucket/runs/one")
    assert twin == tmp_path / "stores/s3/bucket/runs/one"
    assert portable(twin) == portable("s3://bucket/runs/one") == "s3://bucket/runs/one"
    assert portable("/data/runs") == "/data/runs" and portable("hub/model") == "hub/model"
    assert at_hand("/data/runs") == Path("/data/runs")
    with pytest.raises(UserError, match=r"no '\.\.'"):
        here("s3://bucket/../../etc")


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_files_are_written_read_listed_and_deleted(kind: str, bucket: str, tmp_path: Path) -> None:
    place = bucket if kind == "s3" else str(tmp_path / "there")
    objects.write(f"{place}/a", b"one")
    objects.write(f"{place}/a", b"two!")
    objects.write(f"{place}/below/b", b"three")
    assert objects.read(f"{place}/a") == b"two!"
    assert {name: one.size for name, one in objects.listing(place).items()} == {"a": 4, "below/b": 5}
    assert not objects.create(f"{place}/a", b"mine") and objects.create(f"{place}/c", b"mine")
    found = objects.entry(f"{place}/a")
    assert found is not None and objects.entry(f"{place}/none") is None
    if kind == "s3":
        assert objects.replace(f"{place}/a", b"three", found.tag)
        assert objects.replace(f"{place}/a", b"four", found.tag) is False, "somebody else has written meanwhile"
        assert objects.read(f"{place}/a") == b"three"
    objects.delete([f"{place}/a", f"{place}/none"])
    with pytest.raises(FileNotFoundError):
        objects.read(f"{place}/a")
    objects.delete_all(place)
    assert objects.listing(place) == {}


def test_a_folder_is_there_whole_or_not_at_all(bucket: str, tmp_path: Path, s3_server: S3Server) -> None:
    folder, place = a_folder(tmp_path / "folder"), f"{bucket}/folder"
    assert manifest(place) is None
    put(folder, place)
    at_hand(place)
    objects.delete([f"{place}/{MANIFEST}"])  # as if whoever put it had been killed before the end
    assert manifest(place) is None
    with pytest.raises(FileNotFoundError):
        at_hand(place, foreign=False)
    before = len(s3_server.requests("PUT", place.removeprefix("s3:/")))
    put(folder, place)
    assert len(s3_server.requests("PUT", place.removeprefix("s3:/"))) == before + 3
    assert objects.read(f"{place}/below/b.txt") == b"two"


def test_a_folder_that_gets_one_more_file_is_whole_meanwhile(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, place, there = a_folder(tmp_path / "folder"), f"{bucket}/folder", []
    real = folders.put_file

    def put_file(file: Path, address: str) -> None:
        found = manifest(place)
        there.append((file.name, found and sorted(found.files)))
        real(file, address)

    put(folder, place)
    monkeypatch.setattr(folders, "put_file", put_file)
    (folder / "scores").write_text("1.0")
    put(folder, place)
    (folder / "scores").write_text("0.5")
    put(folder, place)
    assert there == [("scores", ["a.txt", "below/b.txt"]), ("scores", None)], "but never a mixture"


def test_what_is_there_is_not_sent_again_and_what_went_goes(bucket: str, tmp_path: Path, s3_server: S3Server) -> None:
    folder, place = a_folder(tmp_path / "folder", state="big"), f"{bucket}/folder"
    digests = Digests()
    put(folder, place, digests)

    def sent() -> list[str]:
        return [path.rpartition("/")[2] for path in s3_server.requests("PUT", place.removeprefix("s3:/"))]

    before = len(sent())
    put(folder, place, digests)
    assert len(sent()) == before
    (folder / "state").unlink()
    (folder / "new.txt").write_text("three")
    put(folder, place, digests)
    assert sent()[before:] == ["new.txt", MANIFEST]
    assert sorted(objects.listing(place)) == [MANIFEST, "a.txt", "below/b.txt", "new.txt"]
    drop_file(place, "new.txt")
    assert at_hand(place).joinpath("a.txt").read_text() == "one" and not (here(place) / "new.txt").exists()


def test_a_damaged_or_half_copied_object_is_never_used(bucket: str, tmp_path: Path) -> None:
    place = f"{bucket}/folder"
    put(a_folder(tmp_path / "folder"), place)
    objects.write(f"{place}/a.txt", b"off")
    with pytest.raises(UserError, match="not the one that was put"):
        at_hand(place)
    assert not here(place).exists()
    objects.write(f"{place}/a.txt", b"one")
    assert at_hand(place).joinpath("a.txt").read_text() == "one"
    evil = {"files": {"../../out": [1, ""]}}
    objects.write(f"{bucket}/evil/{MANIFEST}", json.dumps(evil).encode())
    with pytest.raises(UserError, match="leads out"):
        at_hand(f"{bucket}/evil")


FETCH = """
import sys
from hausa_asr.storage.fetched import at_hand
print(at_hand(sys.argv[1]).joinpath("a.txt").read_text(), flush=True)
sys.stdin.read()
"""


def test_the_processes_of_a_node_fetch_once_and_a_new_node_once_more(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{bucket}/folder"
    size = put(a_folder(tmp_path / "folder", big="x" * 1_000_000), place).size
    slots = [
        subprocess.Popen([sys.executable, "-c", FETCH, place], stdin=-1, stdout=-1, text=True, env=dict(os.environ))
        for _ in range(3)
    ]
    assert [slot.communicate()[0] for slot in slots] == ["one\n"] * 3
    at_hand(place)
    assert downloads(tmp_path / "scratch") == [size]
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / "other"))
    at_hand(place)
    assert downloads(tmp_path / "other") == [size]
    objects.write(f"{bucket}/foreign/a.txt", b"by somebody else")
    assert at_hand(f"{bucket}/foreign").joinpath("a.txt").read_text() == "by somebody else"


def test_room_is_made_by_what_was_not_used_for_longest_and_never_by_what_is_in_use(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [f"{bucket}/{name}" for name in ("one", "two", "three", "four")]
    for place in places:
        put(a_folder(tmp_path / place.rpartition("/")[2], big="x" * 1000), place)
    user = subprocess.Popen([sys.executable, "-c", FETCH, places[0]], stdin=-1, stdout=-1, text=True)
    assert user.stdout is not None and user.stdout.readline() == "one\n"
    for place in places[1:3]:
        at_hand(place)
        fetched.release(place)
    monkeypatch.setenv("HAUSA_ASR_SCRATCH_GB", str(3100 / 1e9))
    at_hand(places[3])
    assert [here(place).is_dir() for place in places] == [True, False, True, True], "the oldest is in use"
    user.communicate()


def test_fetched_folders_leave_room_on_a_small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path))
    monkeypatch.delenv("HAUSA_ASR_SCRATCH_GB", raising=False)
    for disk_gb, limit_gb in ((100, 70), (1000, 200)):
        monkeypatch.setattr(fetched.shutil, "disk_usage", lambda path, gb=disk_gb: SimpleNamespace(total=gb * 1e9))
        assert fetched.limit_bytes() == pytest.approx(limit_gb * 1e9)
    monkeypatch.setenv("HAUSA_ASR_SCRATCH_GB", "500")
    assert fetched.limit_bytes() == 500e9, "whoever sets it knows the disk"


def test_a_store_that_is_away_for_a_while_costs_only_waiting(
    bucket: str, tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(address._OPTIONS, "s3", {"config_kwargs": {"connect_timeout": 1, "read_timeout": 1}})
    s3_server.pause()
    back = threading.Timer(2.5, s3_server.go_on)
    back.start()
    began_s = time.monotonic()
    put(a_folder(tmp_path / "folder"), f"{bucket}/folder")
    assert time.monotonic() - began_s > 2
    back.join()
    assert manifest(f"{bucket}/folder") is not None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(retry, "PATIENCE_S", 0.5)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setitem(address._OPTIONS, "s3", {"config_kwargs": {"connect_timeout": 2}})
    with pytest.raises(UserError, match="has not answered for") as away:
        objects.read(f"{bucket}/folder/a.txt")
    assert "--resume" in str(away.value)


def test_no_such_bucket_is_said_at_once(bucket: str) -> None:
    began_s = time.monotonic()
    with pytest.raises((FileNotFoundError, UserError)):
        objects.write("s3://no-such-bucket/a", b"1")
    assert time.monotonic() - began_s < 5


@pytest.fixture(params=["s3", "memory"])
def either(request: pytest.FixtureRequest, bucket: str) -> str:
    """A folder in a store that writes on conditions, and in one that does not, as Google's."""
    return bucket if request.param == "s3" else bucket.replace("s3://", "memory://")


def test_one_holder_at_a_time_and_one_that_was_cut_off_stops(either: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.3)
    monkeypatch.setattr(lease, "_SETTLE_S", 0.1)
    monkeypatch.setattr(lease, "LEASE_S", 2.0)
    monkeypatch.setattr(lease, "_POLL_S", 0.1)
    place, lost = f"{either}/lease.json", threading.Event()
    first = lease.Lease(place, "the sweep one", lost.set)
    with pytest.raises(UserError, match="Another driver is at work on the sweep one"):
        lease.Lease(place, "the sweep one", lost.set)
    first.close()
    second = lease.Lease(place, "the sweep one", lost.set)
    assert (first.number, second.number) == (1, 2), "given back, it is free at once"
    monkeypatch.setattr(second, "_over", threading.Event())  # it is cut off: its thread renews no more
    second._over.wait = lambda timeout=None: bool(time.sleep(timeout or 0)) or hold.is_set()  # type: ignore[method-assign]
    hold = threading.Event()
    second.check()
    taken = json.loads(objects.read(place))
    objects.write(place, json.dumps({**taken, "owner": "another", "number": 3}).encode())  # taken over meanwhile
    assert lost.wait(5)
    with pytest.raises(lease.LeaseLost):
        second.check()
    assert json.loads(objects.read(place))["owner"] == "another", "and it does not write over the new holder's"


def test_an_answer_that_comes_after_it_was_given_back_is_no_loss(either: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    asked, late, lost, real = threading.Event(), threading.Event(), threading.Event(), objects.replace
    mine = lease.Lease(f"{either}/lease.json", "the sweep", lost.set)

    def slow(place: str, content: bytes, tag: str) -> bool | None:
        if threading.current_thread() is not mine._thread:
            return real(place, content, tag)
        asked.set()
        return not late.wait(10)  # the object is another one by then: the one that was given back

    monkeypatch.setattr(objects, "replace", slow)
    assert asked.wait(5)
    mine.close()
    late.set()
    mine._thread.join(5)
    assert not lost.is_set() and not mine.is_lost, "a driver that has ended its sweep well would say that it lost it"


def test_a_holder_that_crashed_does_not_lock_for_ever(either: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 1.0)
    monkeypatch.setattr(lease, "_POLL_S", 0.1)
    place, waits = f"{either}/lease.json", list[float]()
    dead = {"owner": "node:1:ab", "number": 4, "renewed": time.time(), "released": False}
    objects.write(place, json.dumps(dead).encode())
    taken = lease.Lease(place, "the sweep", lambda: None, waits.append)
    assert (taken.number, waits) == (5, [1.0])
    taken.close()


def test_a_holder_whose_clock_is_wrong_is_not_taken_for_dead(either: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_GLANCE_S", 2.0)
    monkeypatch.setattr(lease, "_POLL_S", 0.1)
    place, over = f"{either}/lease.json", threading.Event()

    def renew() -> None:
        while not over.wait(0.3):
            about = {"owner": "node:1:ab", "number": 4, "renewed": time.time() - 7200, "released": False}
            objects.write(place, json.dumps(about).encode())

    holder = threading.Thread(target=renew)
    holder.start()
    time.sleep(1)
    with pytest.raises(UserError, match="Another driver is at work"):
        lease.Lease(place, "the sweep", lambda: None)
    over.set()
    holder.join()
    taken = lease.Lease(place, "the sweep", lambda: None)
    assert taken.number == 5, "one that has died long ago does not hold anybody up for a minute"
    taken.close()
