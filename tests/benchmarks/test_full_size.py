"""The benchmark of a whole sweep at full size goes its whole road with a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.speech import save_speech

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "full_size.py"


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_it_goes_from_speech_to_a_transcript_with_a_tiny_model(tmp_path: Path) -> None:
    speech, figures = tmp_path / "speech", tmp_path / "figures.json"
    speech.mkdir()
    save_speech(speech)
    command = [sys.executable, str(SCRIPT), "--path", str(speech), "--model", "tiny", "--updates", "2"]
    done = subprocess.run(
        [*command, "--keep", str(tmp_path / "work"), "--json", str(figures)],
        capture_output=True,
        text=True,
        timeout=1140,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(figures.read_text(encoding="utf-8"))
    for part in ("prepare", "until_it_was_killed", "resumed_to_the_end", "export", "transcribe"):
        assert found[part]["seconds"] > 0 and found[part]["peak_gib"] > 0, part
    assert found["plan"]["seconds"] > 0
    trials = found["trials"]
    assert {"t000", "t001", "t002"} < set(trials)  # and the finalists
    assert all(one["end"] in ("finished", "pruned", "diverged") for one in trials.values())
    assert any("rung" in one["pauses"] for one in trials.values())
    assert "promotions" in done.stdout
