"""Dropout whose rate is a tensor: it drops the share it should, and keeps the mean."""

from __future__ import annotations

import pytest
import torch

from hausa_asr.model.compiled import TensorDropout


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_it_drops_as_torchs_own_does(rate: float) -> None:
    torch.manual_seed(0)
    values = torch.full((400, 500), 2.0)
    ours, torchs = TensorDropout(rate)(values), torch.nn.Dropout(rate)(values)
    assert float((ours == 0).float().mean()) == pytest.approx(rate, abs=0.005)
    assert ours.max() == pytest.approx(float(torchs.max()))
    assert float(ours.mean()) == pytest.approx(2.0, rel=0.01)


def test_it_drops_nothing_when_it_does_not_train() -> None:
    values = torch.randn(10)
    assert TensorDropout(0.5).eval()(values) is values
