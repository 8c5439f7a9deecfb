"""What a GPU's meter says becomes kilowatt-hours between two reports, and no meter is no error."""

from __future__ import annotations

import pynvml
import pytest
import torch

from hausa_asr.training import energy
from hausa_asr.training.energy import EnergyMeter


def test_without_a_gpu_nothing_is_known() -> None:
    assert EnergyMeter(torch.device("cpu")).used_kwh() is None
    assert EnergyMeter(torch.device("cuda", 0)).used_kwh() is None, "nor where the driver does not answer"


def test_a_meter_that_counts_from_its_start_gives_what_was_used_since(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([1_000_000, 4_600_000, 4_600_000, 7_000, 8_000])
    monkeypatch.setattr(energy, "_handle", lambda device: "the GPU")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: next(readings))
    meter = EnergyMeter(torch.device("cuda", 0))
    assert meter.used_kwh() == pytest.approx(0.001), "3.6 kJ"
    assert meter.used_kwh() == 0
    assert meter.used_kwh() is None, "the driver was loaded anew"
    assert meter.used_kwh() == pytest.approx(1000 / 3.6e9)


def test_a_gpu_that_has_no_meter_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: object) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(energy, "_handle", lambda device: "an old GPU")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", refuse)
    meter = EnergyMeter(torch.device("cuda", 0))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: 5)
    assert meter.used_kwh() is None
