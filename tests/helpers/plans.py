"""Plans of the shipped settings, and an earlier sweep to measure a speed by."""

from __future__ import annotations

from pathlib import Path

import sweeps
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.admission import describe
from sweeps.planning.estimate import Prediction, predict
from sweeps.planning.slots import admit, local_nodes
from sweeps.record.ledger import Ledger

CONFIGS = Path(sweeps.__file__).parent / "configs"
NODE = "cluster.nodes=[{CPU: 32, GPU: 8}]"
LAPTOP = "cluster.nodes=[{CPU: 2}]"
HOURS_500 = {"train": 450 * 3600.0, "dev": 50 * 3600.0, "test": 0.0}


def planned(
    preset: str, storage: Path, *changes: str, seconds: dict[str, float] | None = None, fingerprint: str = ""
) -> tuple[SweepConfig, Prediction, str]:
    config = load(CONFIGS / f"{preset}.yaml", [f"storage={storage}", *changes], environment={})
    nodes = local_nodes(config.cluster)
    plan = admit(config.resources, nodes, config.search.trials)
    prediction = predict(config, plan, storage, seconds, fingerprint=fingerprint)
    return config, prediction, describe(config, nodes, plan, prediction)


def an_earlier_sweep(
    storage: Path, name: str, pace: float, *changes: str, preset: str = "demo", gpus: str = "", **more: int
) -> Ledger:
    config = load(CONFIGS / f"{preset}.yaml", changes, environment={})
    folder = storage / name
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text(config.to_yaml(), encoding="utf-8")
    ledger = Ledger(folder)
    ledger.append("opened", slots=1, **({"gpus": [gpus]} if gpus else {}))
    scores = {"wer": 0.5, "cer": 0.2, "loss": 1.0}
    for trial in ("t000", "t001", "t002"):
        ledger.append("proposed", trial=trial, settings={}, source="search")
        ledger.append("started", trial=trial)
        started = ledger.state.trials[trial].started
        assert started is not None
        ledger.append(
            "reported", trial=trial, step=70, updates=280, seen_s=1000.0, metrics=scores, best={"step": 70, **scores},
            last=False, diverged=False, time=started + 1000 / pace, **more,
        )  # fmt: skip
    return ledger
