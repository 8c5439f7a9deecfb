"""The ledger in a bucket: nothing acts on what no other machine could read, and who was cut off counts not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hausa_asr.errors import UserError
from hausa_asr.storage import objects, retry
from hausa_asr.storage.address import here
from helpers.s3_server import S3Server
from sweeps.driver import publisher as publishing
from sweeps.driver.publisher import Publisher, published
from sweeps.driver.sweep_folder import forget_deleted, only_driver
from sweeps.record import ledger_parts
from sweeps.record.folders import bring, is_there, sweeps_in
from sweeps.record.ledger import Ledger, LedgerFault, read_state
from sweeps.record.ledger_parts import part, read_parts, refresh
from sweeps.record.state import State


def until(condition: Callable[[], object], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Held:
    """A lease as its holder sees it."""

    is_lost = False

    def __init__(self, number: int) -> None:
        self.number = number

    def check(self) -> None:
        pass


def driver(bucket: str, number: int) -> tuple[Ledger, Publisher]:
    """A driver whose scratch folder is that of the environment."""
    folder = here(f"{bucket}/one")
    folder.mkdir(parents=True, exist_ok=True)
    refresh(folder / "ledger.jsonl", f"{bucket}/one")
    ledger = Ledger(folder)
    publisher = Publisher(folder, f"{bucket}/one", Held(number))  # type: ignore[arg-type]
    ledger.published = publisher.ledger
    return ledger, publisher


def test_what_a_driver_writes_that_was_cut_off_is_passed_over(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, cut_off = driver(bucket, 1)
    old.append("sweep", name="one")
    old.append("proposed", trial="t000", settings={"lr_peak": 1e-3}, source="baseline")
    old.append("started", trial="t000")  # it may wait for the next part
    assert read_parts(f"{bucket}/one").count(b"\n") == 2
    cut_off.ledger()
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / "elsewhere"))
    new, _ = driver(bucket, 2)
    assert new.state == old.state
    new.append("opened", slots=1)
    old.append("proposed", trial="t001", settings={"lr_peak": 2.0}, source="search")
    new.append("proposed", trial="t001", settings={"lr_peak": 3.0}, source="search")
    old.append("proposed", trial="t002", settings={}, source="search")
    assert read_parts(f"{bucket}/one") == new.path.read_bytes()
    assert {name.split("-")[0] for name in objects.listing(f"{bucket}/one/ledger")} == {"000001", "000002"}
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / "third"))
    objects.write(f"{bucket}/one/sweep.yaml", b"storage: elsewhere\n")
    state = read_state(bring(bucket, "one"))
    assert [trial.settings for trial in state.trials.values()] == [{"lr_peak": 1e-3}, {"lr_peak": 3.0}]
    assert is_there(bucket, "one") and not is_there(bucket, "two") and sweeps_in(bucket) == ["one"]


def test_a_copy_that_is_ahead_stays_and_one_that_went_astray_is_replaced(bucket: str, tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    objects.write(part(bucket, 1, 1), b"one\n")
    objects.write(part(bucket, 1, 2), b"two\n")
    objects.write(part(bucket, 1, 4), b"four\n")  # the one before it never came
    for mine, then in ((b"", b"one\ntwo\n"), (b"one\ntwo\nthree\n", b"one\ntwo\nthree\n"), (b"no\n", b"one\ntwo\n")):
        file.write_bytes(mine)
        refresh(file, bucket)
        assert file.read_bytes() == then


def requests(server: S3Server, method: str, bucket: str) -> int:
    return len(server.requests(method, bucket.rpartition("/")[2]))


def test_what_a_copy_has_is_not_read_again_and_many_parts_become_one(
    bucket: str, tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "MOST_PARTS", 25)
    ledger, publisher = driver(bucket, 1)
    elsewhere, fresh, place = tmp_path / "elsewhere/ledger.jsonl", tmp_path / "fresh/ledger.jsonl", f"{bucket}/one"
    again = []
    for count in range(100):
        ledger.append("proposed", trial=f"t{count:03d}", settings={}, source="search")
        publisher.gather()
        if count % 20 == 0:
            assert refresh(elsewhere, place) and elsewhere.read_bytes() == ledger.path.read_bytes()
            before = requests(s3_server, "GET", bucket)
            assert refresh(elsewhere, place)
            again.append(requests(s3_server, "GET", bucket) - before)
    assert again == [1] * 5, "only the list, however many parts there were"
    before = requests(s3_server, "GET", bucket)
    refresh(elsewhere, place)
    grown = requests(s3_server, "GET", bucket) - before
    before = requests(s3_server, "GET", bucket)
    refresh(fresh, place)
    anew = requests(s3_server, "GET", bucket) - before
    print(f"100 parts, 25 at most kept: {grown} GETs for the last 19, {anew} for a new copy")
    assert 2 < grown <= 21 and 2 < anew <= 27
    assert elsewhere.read_bytes() == fresh.read_bytes() == read_parts(place) == ledger.path.read_bytes()
    assert len(objects.listing(f"{place}/ledger")) <= 26
    elsewhere.write_bytes(b"no\n")
    assert refresh(elsewhere, place) and elsewhere.read_bytes() == fresh.read_bytes(), "its note no longer counts"
    new, _ = driver(bucket, 2)
    new.append("opened", slots=1)
    assert refresh(elsewhere, place) and elsewhere.read_bytes() == new.path.read_bytes(), "another driver's parts"


def test_a_sweep_that_was_deleted_does_not_come_back_under_its_name(bucket: str) -> None:
    place, folder = f"{bucket}/one", here(f"{bucket}/one")
    ledger, _ = driver(bucket, 1)
    ledger.append("sweep", name="one", prepared="/old", fingerprint="old")
    refresh(ledger.path, place)
    objects.delete_all(place)
    with published(folder, lambda: None, print):
        assert Ledger(folder).state.prepared == "/old", "a resume goes on with the last copy that there is"
        with pytest.raises(UserError, match="Another driver is at work"):
            forget_deleted(folder)
    forget_deleted(folder)
    assert read_state(folder) == State(), "a new sweep does not begin with the data of the old one"
    with published(folder, lambda: None, print):
        assert not Ledger(folder).state.prepared


def test_a_sweep_that_another_machine_began_anew_is_read_from_its_beginning(bucket: str, tmp_path: Path) -> None:
    """With a part of the same number and size."""
    copy, first = tmp_path / "ledger.jsonl", part(bucket, 1, 1)
    objects.write(first, b'{"event": "old"}\n')
    refresh(copy, bucket)
    objects.write(first, b'{"event": "new"}\n')
    objects.write(part(bucket, 1, 2), b'{"event": "two"}\n')
    assert refresh(copy, bucket)
    assert copy.read_bytes() == b'{"event": "new"}\n{"event": "two"}\n'


@pytest.mark.parametrize("arrives", ["at once", "late", "never"])
@pytest.mark.parametrize("gathers", [True, False])
def test_a_part_whose_answer_was_lost_is_put_again_before_any_other(
    bucket: str, monkeypatch: pytest.MonkeyPatch, arrives: str, gathers: bool
) -> None:
    monkeypatch.setattr(publishing, "MOST_PARTS", 1)
    ledger, publisher = driver(bucket, 1)
    ledger.append("proposed", trial="t000", settings={}, source="baseline")
    ledger.append("proposed", trial="t001", settings={}, source="search")
    ledger.append("waited", seconds=1.0)  # put with what comes next
    create, lost = objects.create, list[tuple[str, bytes]]()

    def answer_lost(place: str, content: bytes) -> bool:
        lost.append((place, content))
        if arrives == "at once":
            create(place, content)
        raise TimeoutError(place)

    with monkeypatch.context() as outage:
        outage.setattr(objects, "create", answer_lost)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                (publisher.gather if gathers else publisher.ledger)()
            ledger.append("waited", seconds=2.0)
    if arrives == "late":
        create(*lost[0])
    for then in (publisher.gather, publisher.ledger, publisher.gather):
        then()
        ledger.append("waited", seconds=3.0)
    publisher.ledger()
    assert read_parts(f"{bucket}/one") == ledger.path.read_bytes()
    numbers = [name.split("-")[1].partition(".")[0] for name in objects.listing(f"{bucket}/one/ledger")]
    assert len(numbers) == len({*numbers}), "no two parts of one number"


def test_parts_that_are_replaced_while_they_are_read_are_listed_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "MOST_PARTS", 1)
    ledger, publisher = driver(bucket, 1)
    ledger.append("proposed", trial="t000", settings={}, source="baseline")
    ledger.append("proposed", trial="t001", settings={}, source="search")
    list_parts = ledger_parts._listed
    replaced = []

    def listed(place: str) -> list[ledger_parts.Part]:
        found = list_parts(place)
        if not replaced:
            replaced.append(publisher.gather())
        return found

    monkeypatch.setattr(ledger_parts, "_listed", listed)
    assert refresh(tmp_path / "ledger.jsonl", f"{bucket}/one") and replaced
    assert (tmp_path / "ledger.jsonl").read_bytes() == ledger.path.read_bytes()


def test_what_others_wait_for_is_put_soon_and_the_rest_together(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "LOOK_S", 0.1)
    monkeypatch.setattr(publishing, "LEDGER_S", 1000)
    ledger, publisher = driver(bucket, 1)
    ledger.append("opened", slots=1)
    publisher.start()
    time.sleep(0.5)  # the first round puts all
    for step in range(5):
        ledger.append("waited", seconds=step)
        time.sleep(0.2)
    assert read_parts(f"{bucket}/one").count(b"\n") == 1
    ledger.append("slots", slots=3)
    until(lambda: read_parts(f"{bucket}/one").count(b"\n") == 7)
    ledger.append("waited", seconds=1)
    publisher.close()
    assert read_parts(f"{bucket}/one") == ledger.path.read_bytes()
    assert len(objects.listing(f"{bucket}/one/ledger")) == 3


def test_a_copy_of_the_folder_follows_the_store_and_leaves_a_driver_of_this_machine_alone(
    bucket: str, tmp_path: Path, s3_server: S3Server
) -> None:
    ledger, publisher = driver(bucket, 1)
    (ledger.folder / "sweep.yaml").write_text("storage: elsewhere\n")
    (ledger.folder / "result.json").write_text("{}")
    (ledger.folder / "diagnosis").mkdir()
    (ledger.folder / "diagnosis/t000.json").write_text("[]")
    ledger.append("opened", slots=1)
    publisher.files()
    for name in ("trials/t000/a", "ray/b", "export/c"):
        objects.write(f"{bucket}/one/{name}", b"large")
    with pytest.MonkeyPatch.context() as there:
        there.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / "elsewhere"))
        copy = bring(bucket, "one")
        files = {str(one.relative_to(copy)) for one in copy.rglob("*") if one.is_file() and one.name[0] != "."}
        assert files == {"sweep.yaml", "result.json", "ledger.jsonl", "diagnosis/t000.json"}
        before = requests(s3_server, "GET", bucket)
        bring(bucket, "one")
        assert requests(s3_server, "GET", bucket) - before == 3, "three lists, and nothing is read again"
        (ledger.folder / "sweep.yaml").write_text("storage: another\n")
        publisher.files()
        publisher.drop("result.json")
        bring(bucket, "one")
        assert (copy / "sweep.yaml").read_text() == "storage: another\n" and not (copy / "result.json").exists()
        (copy / "result.json").write_text("{}")
        bring(bucket, "one")
        assert (copy / "result.json").exists(), "it was not copied, so it is a driver's that could not put it"
    with only_driver(ledger.folder):
        (ledger.folder / "sweep.yaml").write_text("storage: ahead of the store\n")
        before = requests(s3_server, "GET", bucket)
        assert "ahead" in (bring(bucket, "one") / "sweep.yaml").read_text()
        assert requests(s3_server, "GET", bucket) == before


def test_nothing_acts_on_an_event_that_the_storage_has_not_got(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, _ = driver(bucket, 1)
    ledger.append("sweep", name="one")
    ledger.append("proposed", trial="t000", settings={}, source="baseline")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setattr(retry, "PATIENCE_S", 0.2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setitem(publishing.objects.filesystem.__globals__["_OPTIONS"], "s3", {"config_kwargs": {}})
    with pytest.raises(LedgerFault, match="can't be written"):
        ledger.append("proposed", trial="t001", settings={}, source="search")


def test_a_sweep_on_a_disk_has_no_publisher(tmp_path: Path) -> None:
    with published(tmp_path, lambda: None, lambda line: None) as publisher:
        assert publisher is None
        with pytest.raises(UserError, match="Another driver is at work"), published(tmp_path, lambda: None, print):
            pass
    assert [one.name for one in tmp_path.iterdir()] == [".lock"]
