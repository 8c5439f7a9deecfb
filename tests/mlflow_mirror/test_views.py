"""The link of a sweep opens its trials, sorted and with charts, in a real MLflow UI and a real browser."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from mlflow import MlflowClient

from hausa_asr.tracking.saved_view import view_tag
from hausa_asr.tracking.tracker import MetricsRow, Tracker
from helpers.browser import Tab, needs_browser
from helpers.mlflow_server import Server
from sweeps.mlflow_mirror.views import sweeps_view, trials_key, trials_view

SEARCHED = ["lr_peak", "schedule", "mask_time_prob"]


def a_sweep(tracker: Tracker, name: str) -> str:
    parent = tracker.start_sweep(name, {}, {"base": "demo"})
    for number in range(4):
        settings = {"lr_peak": 1e-3 * (number + 1), "schedule": "linear", "mask_time_prob": 0.1 * number, "seed": 7}
        run = tracker.start_trial(parent, name, f"t00{number}", settings, {}, name=f"t00{number} of {name}")
        for step in (10, 20, 30):
            wer = 1.0 - 0.01 * step + 0.05 * number
            scores = {"wer": wer, "best_wer": wer, "loss": 3.0 - 0.05 * step, "seen_s": step * 40.0}
            tracker.log(run, [MetricsRow(step, int(time.time() * 1000), scores)])
        tracker.end_trial(run, "finished", "", {})
    return parent


def test_a_view_fits_into_mlflows_tag() -> None:
    many = [f"a_setting_with_a_long_name_{number}" for number in range(40)]
    key, value = view_tag(*trials_view("s" * 100, "r" * 32, many))
    assert len(key) <= 250 and len(value) < 5000
    assert json.loads(value)["name"].startswith("Trials of s")


@needs_browser
def test_the_link_of_a_sweep_opens_its_trials(server: Server, tmp_path: Path) -> None:
    tracker = Tracker(server.uri, "views")
    parent = a_sweep(tracker, "mine")
    a_sweep(tracker, "another")
    for view in (trials_view("mine", parent, SEARCHED), sweeps_view()):
        tracker.save_view(*view)
    tags = MlflowClient(server.uri).get_experiment(tracker.experiment_id).tags
    assert {json.loads(one)["name"] for key, one in tags.items() if "ViewState" in key} == {"Trials of mine", "Sweeps"}
    html = asyncio.run(drawn(tracker.view_url(trials_key("mine")), tmp_path / "browser"))
    assert "share key" not in html, "MLflow has read it"
    assert all(f"t00{number} of mine" in html for number in range(4)), "its trials"
    assert "of another" not in html, "and no others"
    assert "Sort: best_wer" in html


async def drawn(url: str, folder: Path) -> str:
    """The page as HTML, once its charts are drawn, which takes a busy machine long."""
    titles = json.dumps(["Parallel Coordinates", "lr_peak vs. best_wer", "schedule vs. best_wer"])
    async with Tab(url, folder, "1800,1600") as tab:
        await tab.wait_for(f"{titles}.every(title => document.documentElement.outerHTML.includes(title))", 150)
        return str(await tab.value("document.documentElement.outerHTML"))
