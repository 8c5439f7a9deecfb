"""Base checkpoints stay in memory, and are dropped, the oldest first, when it runs short."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from hausa_asr.model import wav2vec2
from hausa_asr.model.kept import Kept, free_memory
from hausa_asr.recipe import FinetuneConfig


@dataclass(frozen=True)
class Weights:
    """A stand-in for a checkpoint."""

    n_bytes: int


@pytest.mark.parametrize(("free", "kept"), [((0.8, 1e12), 3), ((0.1, 1e12), 1), ((0.8, 1e3), 1)])
def test_all_bases_stay_where_there_is_room_and_the_one_at_hand_where_there_is_none(
    free: tuple[float, float], kept: int, layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wav2vec2, "_kept", Kept(lambda: free))
    bases = [tmp_path / name for name in "abc"]
    for base in bases:
        shutil.copytree(layer_norm_base, base)
        wav2vec2.new_model(str(base), FinetuneConfig())
    for base in reversed(bases):  # what is not in memory can't be loaded any more
        shutil.rmtree(base)
    there = 0
    for base in reversed(bases):
        try:
            wav2vec2.new_model(str(base), FinetuneConfig())
        except Exception:
            continue
        there += 1
    assert there == kept


def test_where_memory_becomes_short_the_oldest_go_first_and_a_larger_one_needs_more() -> None:
    free, n_bytes = iter([0.5, 0.5, 0.5, 0.5, 0.2, 0.3]), 100.0
    kept: Kept[Weights] = Kept(lambda: (next(free, 1.0), n_bytes))
    for key in ("a", "b", "a", "c"):  # at `c` the first look is at little memory, and the next at enough
        kept(key, lambda: Weights(10))
    assert list(kept._entries) == ["a", "c"]
    kept("large", lambda: Weights(20))  # beside it 160 bytes must be free
    assert list(kept._entries) == ["large"]


MACHINE = {"meminfo": "MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 40 kB\n"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, (1.0, math.inf)),
        (MACHINE, (0.4, 40 * 1024)),
        ({**MACHINE, "memory.max": "max", "memory.current": "9"}, (0.4, 40 * 1024)),
        ({**MACHINE, "memory.max": "10", "memory.current": "9"}, (0.1, 1)),
        (
            {**MACHINE, "memory.max": "100", "memory.current": "90",
             "memory.stat": "anon 70\nactive_file 12\ninactive_file 8\n"},
            (0.3, 30),
        ),
        ({"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "500",
          "memory/memory.stat": "total_inactive_file 100\n"}, (0.6, 600)),
    ],
)  # fmt: skip
def test_free_memory_is_the_machines_or_the_containers(
    files: dict[str, str], free: tuple[float, float], tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path / "meminfo", tmp_path) == pytest.approx(free)
    assert 0 < free_memory()[0] <= 1
