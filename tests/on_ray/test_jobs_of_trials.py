"""What a slot is given to do of a trial: its job, as the Tune run hands it out."""

from __future__ import annotations

from pathlib import Path

from hausa_asr.dataset.prepared import load_prepared
from hausa_asr.settings.load import load
from helpers.speech import prepared_speech
from sweeps.driver.sweep import open_sweep
from sweeps.on_ray.experience import Experience
from sweeps.on_ray.tune_run import _tune_config
from sweeps.planning.slots import admit
from sweeps.planning.speed import base_of


def test_a_trial_leaves_the_disk_that_the_checkpoints_need_at_the_least(tmp_path: Path) -> None:
    config = load(None, [f"storage={tmp_path}", "search.trials=8", "finalists.k=0"], environment={})
    plan = admit(config.resources, [{"CPU": 2}], config.search.trials)
    (tmp_path / "sweep").mkdir()
    sweep = open_sweep(config, tmp_path / "sweep", load_prepared(prepared_speech(tmp_path)), plan)
    sweep.ledger.append("proposed", trial="t000", settings={}, source="baseline")
    job = _tune_config(sweep, {}, sweep.ledger.state.trials["t000"], Experience(config, []))["job"]
    base = base_of("demo")
    assert base is not None
    # Two run and one of them writes, and the baseline waits, each with weights and both moments of Adam; one is best.
    assert job["keep_free"] == (base.weights - base.convolutions) * (4 * 12 + 4)
