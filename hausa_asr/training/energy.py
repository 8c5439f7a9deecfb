"""Read the energy that a GPU has used off its own meter (NVML).

In: a device. Out: kilowatt-hours between two readings. Called by the fine-tune's reports. A GPU without a meter, or a
machine that gives no access to it, is no error: then nothing is reported.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

log = logging.getLogger("hausa_asr.trial")

_MJ_PER_KWH = 3.6e9


class EnergyMeter:
    """The energy that one device uses from now on."""

    def __init__(self, device: torch.device) -> None:
        self._handle = _handle(device) if device.type == "cuda" else None
        self._last_mj = self._read()

    def used_kwh(self) -> float | None:
        """Kilowatt-hours since the last call; None where they are not known."""
        now_mj, last_mj = self._read(), self._last_mj
        self._last_mj = now_mj
        if now_mj is None or last_mj is None or now_mj < last_mj:  # the driver was loaded anew
            return None
        return (now_mj - last_mj) / _MJ_PER_KWH

    def _read(self) -> int | None:
        if self._handle is None:
            return None
        import pynvml

        try:
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except pynvml.NVMLError:
            self._handle = None
            return None


def _handle(device: torch.device) -> Any:
    """NVML's handle of a GPU; None if it can't be had."""
    try:
        import pynvml

        pynvml.nvmlInit()
        # By its id: NVML counts all GPUs of a machine, and torch those that it is shown.
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except Exception as error:  # no library, no driver, a part of a GPU: whatever it is, training goes on
        log.info("the energy of %s is not known: %s", device, error)
        return None
