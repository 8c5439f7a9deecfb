"""What a sweep learns from reports: how long to wait for the next, and which micro-batches fit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from hausa_asr.recipe import Progress
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig
from helpers.events import report
from sweeps.on_ray.experience import Experience
from sweeps.on_ray.messages import Reported, from_text, to_text
from sweeps.record.ledger import Ledger
from sweeps.record.trial import TrialRecord

BASES = "space={base: {choices: [small, large]}, freeze_feature_encoder: {choices: [true, false]}}"
WATCH = ("cluster.report_timeout_s=100", "cluster.first_report_timeout_s=5000", "finetune.micro_batch_s=80")


@pytest.fixture
def config() -> SweepConfig:
    return load(None, [BASES, *WATCH, "model.base=small"])


def trial(number: int = 0, **settings: Any) -> TrialRecord:
    return TrialRecord(f"t{number:03d}", settings, "search")


def message(wait_s: float, is_first: bool = False, micro_batch_s: float = 80.0) -> Reported:
    """A report as the driver has it, which has come as text."""
    fields = {**report(5), "samples": [], "checkpoint": "", "best_checkpoint": ""}
    fields["metrics"] = {**fields["metrics"], "micro_batch_s": micro_batch_s}
    read = from_text(to_text(Reported(Progress(**fields), "slot-1", ("n1", "n2"), 2, wait_s, is_first)))
    assert isinstance(read, Reported) and read.nodes == ("n1", "n2")
    return read


def test_a_first_wait_is_apart_from_the_others_and_of_trials_that_get_ready_alike(config: SweepConfig) -> None:
    known = Experience(config, [])
    assert (known.first_report_s(trial()), known.longest_wait_s(trial())) == (5000, 0.0), "nothing has been seen"
    known.learn(trial(), message(300.0, is_first=True))  # with the cache
    assert (known.first_report_s(trial()), known.longest_wait_s(trial())) == (5000, 0.0), "it may be a checkpoint's"
    known.learn(trial(), message(20.0))
    known.learn(trial(), message(15.0))
    assert known.longest_wait_s(trial()) == 20.0, "the cache is not made again for each report"
    assert known.first_report_s(trial()) == 3200
    assert known.warm_nodes(trial()) == ["n1", "n2"], "another node has to fetch the data and make the cache first"
    assert known.warm_nodes(trial(base="large")) == []
    for other in (trial(base="large"), trial(freeze_feature_encoder=False)):
        assert (known.first_report_s(other), known.longest_wait_s(other)) == (5000, 0.0)
        known.learn(other, message(2.0, is_first=True))
        known.learn(other, message(1.0))
        assert known.first_report_s(other) == 100, "never less than report_timeout_s"
    known.learn(trial(base="large"), message(900.0, is_first=True))
    assert known.first_report_s(trial(base="large")) == 5000, "and never more than first_report_timeout_s"


def test_what_fits_is_known_to_later_trials_of_the_same_base_and_to_a_later_driver(
    config: SweepConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sweeps")
    known = Experience(config, [])
    known.learn(trial(), message(1.0))
    assert known.micro_batch_s(trial()) == 80 and not caplog.records
    for fits in (40.0, 20.0, 20.0, 40.0):
        known.learn(trial(1), message(1.0, micro_batch_s=fits))
    assert known.micro_batch_s(trial(2)) == 20 and known.micro_batch_s(trial(2, base="large")) == 80
    assert [one.getMessage().split(": ")[0] for one in caplog.records] == ["t001", "t001"], "each finding once"
    ledger = Ledger(tmp_path)
    ledger.append("sweep", name="s")
    ledger.append("proposed", trial="t000", settings={}, source="search")
    ledger.append("reported", trial="t000", **{**report(5), "metrics": {**report(5)["metrics"], "micro_batch_s": 20}})
    assert Experience(config, Ledger(tmp_path).state.trials.values()).micro_batch_s(trial(2)) == 20


def test_a_recipe_that_asks_for_smaller_micro_batches_has_not_run_out_of_memory() -> None:
    config = load(None, ["space={micro_batch_s: {choices: [10, 80]}}", "model.base=small"])
    known = Experience(config, [])
    known.learn(trial(micro_batch_s=10), message(1.0, micro_batch_s=10))
    assert known.micro_batch_s(trial(micro_batch_s=80)) == 80
    known.learn(trial(micro_batch_s=80), message(1.0, micro_batch_s=40))
    assert [known.micro_batch_s(trial(micro_batch_s=asked)) for asked in (10, 80)] == [10, 40]
