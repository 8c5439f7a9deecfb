"""What whole sweeps share: settings for a tiny one."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.whole_sweeps import SETTINGS


@pytest.fixture
def settings(tmp_path: Path, audio: Path, layer_norm_base: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SETTINGS.format(audio=audio, base=layer_norm_base, folder=tmp_path))
    return path
