"""The same sweep in a bucket as on a disk: with a store that is away, a second driver, and a driver elsewhere.

With `-s` it prints what docs/results.md says of object stores: bytes for each node, requests, and what an outage costs.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from hausa_asr.export.best_model import best_model
from hausa_asr.storage import objects
from helpers.s3_server import S3Server
from helpers.whole_sweeps import ONE_SLOT, finish, ledger_of, start, wait_for
from sweeps.record.ledger_parts import read_parts

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
AWAY_S, LONG_AWAY_S = 6.0, 30.0
FIGURES = ("wer", "cer", "loss", "train_loss", "lr")


def learned(events: list[dict[str, Any]]) -> list[Any]:
    """What a sweep has tried, how it went and what was decided, without its times and its runs' names."""
    found: list[Any] = []
    for event in events:
        if event["event"] == "proposed":
            found.append((event["trial"], event["settings"]))
        elif event["event"] == "reported":
            found.append((event["trial"], event["step"], *(event["metrics"][name] for name in FIGURES)))
        elif event["event"] in ("ranked", "paused", "ended"):
            found.append((event["event"], event["trial"], event.get("passed"), event.get("state")))
    return found


def events_in(place: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_parts(place).splitlines()]


def reported_at(events: list[dict[str, Any]]) -> list[float]:
    return [event["time"] for event in events if event["event"] == "reported"]


def downloads(scratch: Path) -> list[str]:
    return [one["address"] for one in fetches(scratch)]


def fetches(scratch: Path) -> list[dict[str, Any]]:
    log = scratch / ".fetched/log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def figures(name: str, scratch: Path, storage: str, server: S3Server) -> str:
    """What a node has fetched so far, by kind, and how much is in the store after how many requests."""
    kinds: dict[str, int] = {}
    for one in fetches(scratch):
        kind = "data" if "/_data/" in one["address"] else "checkpoints" if "/trials/" in one["address"] else "other"
        kinds[kind] = kinds.get(kind, 0) + one["bytes"]
    fetched = ", ".join(f"{kind} {size / 1e6:.2f} MB" for kind, size in kinds.items()) or "nothing"
    stored = sum(about.size for about in objects.listing(storage).values())
    asked = ", ".join(f"{len(server.requests(method))} {method}" for method in ("PUT", "GET", "HEAD", "DELETE"))
    return f"{name}: fetched {fetched}; the store holds {stored / 1e6:.2f} MB after {asked}"


def test_a_sweep_in_a_bucket_is_the_same_sweep(
    settings: Path, tmp_path: Path, bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("--config", settings, *ONE_SLOT, "--set", "search.trials=2", "--set", "name=one",
              "--set", "finetune.length_s=2400")  # fmt: skip
    finish(start(*common))
    on_disk = ledger_of(tmp_path / "runs/one")

    first, second, storage = tmp_path / "first", tmp_path / "second", f"{bucket}/runs"
    driver = start(*common, "--set", f"storage={storage}", HAUSA_ASR_SCRATCH=str(first))
    twin = first / "stores" / storage.replace("://", "/") / "one"
    wait_for(lambda: any(event["event"] == "reported" for event in ledger_of(twin)), driver)
    s3_server.pause()  # in the middle of the first trial, or at its first rung
    other = start("--resume", f"{storage}/one", *ONE_SLOT, HAUSA_ASR_SCRATCH=str(second))
    time.sleep(AWAY_S)
    started = [event["trial"] for event in ledger_of(twin) if event["event"] == "started"]
    assert started == ["t000"], "the next waits, whether the first has come to its rung or not"
    s3_server.go_on()
    assert "Another driver is at work on the sweep one" in finish(other, code=2)
    output = finish(driver)
    assert "Traceback" not in output
    print(figures("the first node", first, storage, s3_server))
    place = f"{storage}/one"
    assert learned(events_in(place)) == learned(on_disk)
    assert ledger_of(twin) == events_in(place)
    names = set(objects.listing(place))
    assert {"sweep.yaml", "result.json", "report.html", "sweep.log"} <= names
    assert downloads(first) == [], "this node has made all of it itself"

    # Another machine: nothing is there but the bucket, and MLflow.
    wider = start("--resume", place, *ONE_SLOT, "--set", "search.trials=3", HAUSA_ASR_SCRATCH=str(second))
    assert "Traceback" not in finish(wider)
    went_on = events_in(place)
    assert learned(went_on)[: len(learned(on_disk)) - 2] == learned(on_disk)[:-2]
    assert [event["trial"] for event in went_on if event["event"] == "proposed"] == ["t000", "t001", "t002"]
    print(figures("another node", second, storage, s3_server))
    fetched = downloads(second)
    assert len(fetched) == len(set(fetched)), "each thing once"
    assert any("/_data/" in one for one in fetched)

    third = tmp_path / "third"
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(third))
    model = best_model(f"sqlite:///{tmp_path}/mlflow.db", "hausa-asr", sweep="one", out=tmp_path / "model", rank=2)
    assert model.source == "checkpoint" and (tmp_path / "model/model.safetensors").is_file()
    assert len(downloads(third)) == 1
    print(figures("an export", third, storage, s3_server))

    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if b"planted-secret" in path.read_bytes()]
    assert not [name for name in objects.listing(storage) if b"planted" in objects.read(f"{storage}/{name}")]


@pytest.mark.parametrize("rule", ["asha", "none"])
def test_a_store_that_is_away_for_half_a_minute_costs_no_result_and_a_wait_at_a_pause_at_most(
    settings: Path, tmp_path: Path, bucket: str, s3_server: S3Server, rule: str
) -> None:
    """The trial trains on. This tiny model has a checkpoint every few seconds, a real one every ten minutes."""
    common = ("--config", settings, *ONE_SLOT, "--set", "search.trials=1", "--set", "finetune.length_s=12000",
              "--set", "finetune.eval_every_steps=20", "--set", f"pruning.rule={rule}",
              "--set", "name=one")  # fmt: skip
    finish(start(*common))
    on_disk = ledger_of(tmp_path / "runs/one")
    storage, scratch = f"{bucket}/runs", tmp_path / "first"
    driver = start(*common, "--set", f"storage={storage}", HAUSA_ASR_SCRATCH=str(scratch))
    twin = scratch / "stores" / storage.replace("://", "/") / "one"
    wait_for(lambda: len(reported_at(ledger_of(twin))) >= 3, driver)
    s3_server.pause()
    began = time.time()
    time.sleep(LONG_AWAY_S)
    s3_server.go_on()
    ended = time.time()
    output = finish(driver)
    assert "Traceback" not in output
    assert output.count("storage does not answer since") == output.count("storage answers again since") == 1
    events = events_in(f"{storage}/one")
    assert learned(events) == learned(on_disk) and ledger_of(twin) == events
    times = reported_at(events)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    meanwhile = sum(began < at < ended for at in times)
    lost_s = max(gaps) - median(gaps)
    print(f"rule {rule}: {meanwhile} reports in {ended - began:.1f} s without the store, {lost_s:.1f} s lost")
    assert meanwhile > 0, "it trains on"
    assert lost_s < LONG_AWAY_S + 10
