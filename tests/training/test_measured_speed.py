"""A speed that is measured is that of real updates and scores, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import pytest

from hausa_asr.training import speed
from hausa_asr.training.finetune import Data
from helpers.fine_tunes import RECIPE
from helpers.speech import ToneSplit


@pytest.mark.parametrize(("most", "made"), [(5, 7), (1000, 26)])
def test_updates_are_made_and_not_all_are_counted(
    layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, made: int
) -> None:
    updates = []
    update = speed.update
    monkeypatch.setattr(speed, "update", lambda run: (updates.append(run.step), update(run)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = Data(ToneSplit(24, 0), ToneSplit(8, 1))
    rates = speed.measure(RECIPE, data, base=str(layer_norm_base), most=most)
    assert len(updates) == made, "two more than are counted, and no more than the trial has"
    assert rates.training > 1 and rates.scoring > 1
    assert not list(tmp_path.iterdir())


def test_one_update_is_counted_however_slow(layer_norm_base: Path) -> None:
    short = dataclasses.replace(RECIPE, length_s=24)
    rates = speed.measure(short, Data(ToneSplit(24, 0), ToneSplit(8, 1)), base=str(layer_norm_base), seconds=0)
    assert rates.training > 0
