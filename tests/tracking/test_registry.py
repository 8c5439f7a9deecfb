"""A model is registered on a real server that keeps the artifacts, and loads by its alias."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from hausa_asr.errors import UserError
from hausa_asr.export.model_card import Card, ErrorRates
from hausa_asr.export.write import export_checkpoint
from hausa_asr.model.transcribe import transcribe
from hausa_asr.tracking.registry import check_names, register
from hausa_asr.tracking.tracker import Tracker
from helpers.fine_tunes import save_checkpoint
from helpers.mlflow_server import Server

CARD = Card("s", "t001", "demo", {}, {}, ErrorRates(0.5, 0.25))


LOAD = """
import sys
import mlflow.transformers
import numpy as np
recognise = mlflow.transformers.load_model("models:/hausa@champion", dst_path=sys.argv[1] + "/loaded")
print(recognise({"raw": np.load(sys.argv[1] + "/samples.npy"), "sampling_rate": 16_000})["text"])
"""
"""In a process of its own, since MLflow keeps what it is set to."""


def test_the_alias_gives_a_pipeline_that_hears_the_same(server: Server, layer_norm_base: Path, tmp_path: Path) -> None:
    folder = export_checkpoint(save_checkpoint(tmp_path / "trial", layer_norm_base), tmp_path / "model", CARD)
    tracker = Tracker(server.uri, "registry")
    run = tracker.start_sweep("s", {}, {})
    tags = {"sweep": "s", "trial": "t001"}
    first, second = (register(tracker, run, folder, "hausa", "champion", tags, "a verdict") for _ in range(2))
    assert (first, second) == ("1", "2")
    found = MlflowClient(server.uri).get_model_version_by_alias("hausa", "champion")
    assert (found.version, found.description, found.tags["trial"]) == (second, "a verdict", "t001")
    (tmp_path / "loaded").mkdir()
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    np.save(tmp_path / "samples.npy", samples)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": server.uri},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == transcribe(samples, model=str(folder))
    files = [path for path in (tmp_path / "loaded").rglob("*") if path.is_file()]
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in files), "nothing of this machine"


@pytest.mark.parametrize(
    ("name", "alias"), [("a/b", None), ("", None), ("hausa", "v3"), ("hausa", "latest"), ("h", "a b")]
)
def test_names_that_mlflow_refuses_are_refused_at_once(name: str, alias: str | None) -> None:
    check_names("hausa-asr 1", "champion")
    with pytest.raises(UserError, match="can't be used"):
        check_names(name, alias)
