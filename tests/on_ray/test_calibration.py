"""A trial's speed is measured before a sweep starts where a guess, wrong by ten times, would cost much."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.plans import CONFIGS, LAPTOP, planned
from helpers.speech import prepared_speech
from helpers.whole_sweeps import ROOT
from sweeps.on_ray.calibration import is_worthwhile

_SCRIPT = """
import json, sys
from dataclasses import replace
from pathlib import Path
from hausa_asr.dataset.prepared import load_prepared
from hausa_asr.errors import NodeFault, UserError
from hausa_asr.settings.load import load
from sweeps.on_ray.cluster import connected, prepare_environment
from sweeps.planning.estimate import predict
from sweeps.planning.slots import admit

prepared, preset = load_prepared(Path(sys.argv[1])), Path(sys.argv[2])
storage = prepared.path.parent / "runs"
changes = ["finetune.batch_s=2", "finetune.length_s=60", "cluster.local_cpus=1", f"storage={storage}"]
config = load(preset, changes, environment={})
prepare_environment(config.cluster)

def shown(one):
    speed, warning = one.speed, one.warnings[-1] if one.warnings else ""
    return {"pace": speed.audio_s_per_s, "guessed": speed.guessed, "source": speed.source, "hours": one.high.hours,
            "scoring_s": speed.scoring_s, "warning": warning}

class OldNode:
    def measure(self, *given):
        raise NodeFault("The GPU has capability 7.0.", where="cuda:0", fix="Another.")

with connected(config.cluster, Path("/nowhere/logs")) as nodes:
    import ray
    from sweeps.on_ray import calibration
    from sweeps.on_ray.calibration import calibrated

    plan = admit(config.resources, nodes, config.search.trials)
    guess = predict(config, plan, storage, prepared.seconds)
    known = calibrated(config, plan, prepared, guess)
    try:
        calibrated(config, plan, replace(prepared, path=storage / "gone"), guess)
    except UserError as fault:
        refused = str(fault)
    measuring = calibration._Measuring
    calibration._Measuring = ray.remote(OldNode)
    unfit = calibrated(config, plan, prepared, guess)
    calibration._Measuring = measuring
    calibration._PATIENCE_S = 0.1  # as where no worker comes
    failed = calibrated(config, plan, prepared, guess)
    print(json.dumps([shown(guess), shown(known), shown(failed), shown(unfit), refused]))
"""


@pytest.mark.parametrize(
    ("guessed_s", "change", "worthwhile"),
    [
        (1500.0, "budget.wall_s=36000", True),  # 25 minutes, or four hours
        (200.0, "budget.hours=1", True),
        (170.0, "budget.wall_s=36000", False),  # half an hour at the worst
        (1500.0, "search.trials=16", False),  # no budget hangs on it, and it is short as far as is known
        (1900.0, "search.trials=16", True),
    ],
)
def test_a_guess_is_checked_where_the_sweep_is_long_or_may_be_and_a_budget_hangs_on_it(
    tmp_path: Path, guessed_s: float, change: str, worthwhile: bool
) -> None:
    config, prediction, _ = planned("demo", tmp_path, LAPTOP, change)
    assert prediction.speed and prediction.speed.guessed and prediction.high
    guess = replace(prediction, high=replace(prediction.high, wall_s=guessed_s))
    assert is_worthwhile(config, guess) is worthwhile


def test_what_is_known_is_not_measured_again_and_what_is_not_known_at_all_is_measured(tmp_path: Path) -> None:
    config, known, _ = planned("demo", tmp_path, LAPTOP, "budget.wall_s=36000", "resources.audio_s_per_s=1")
    assert known.high and known.high.wall_s > 36_000 and not is_worthwhile(config, known)
    config, unknown, _ = planned("demo", tmp_path, LAPTOP, "budget.wall_s=36000", "model.base=some/checkpoint")
    assert unknown.high is None and is_worthwhile(config, unknown)


@pytest.mark.slow
def test_a_speed_is_measured_on_a_worker_of_a_real_ray(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(prepared_speech(tmp_path)), str(CONFIGS / "demo.yaml")]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert asked.returncode == 0, asked.stderr
    guess, known, failed, unfit, refused = json.loads(asked.stdout.splitlines()[-1])
    assert guess["guessed"] and not known["guessed"] and known["source"] == "measured just now", known
    assert 5 < known["pace"] < 2000 and known["scoring_s"] > 0
    assert known["hours"] == pytest.approx(guess["hours"] * guess["pace"] / known["pace"])
    assert failed["pace"] == guess["pace"] and "could not be measured, so it is guessed" in failed["warning"]
    assert unfit["guessed"] and "so it is guessed: The GPU has capability 7.0." in unfit["warning"], (
        "others may be sound"
    )
    assert "no such prepared dataset" in refused
