"""Base checkpoints stay in memory while there is room, and make way where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hausa_asr.model import wav2vec2
from hausa_asr.model.kept import Kept, free_memory
from hausa_asr.recipe import FinetuneConfig


@pytest.mark.parametrize(("free", "kept"), [(0.8, 3), (0.1, 1)])
def test_all_bases_stay_where_there_is_room_and_the_one_at_hand_where_there_is_none(
    free: float, kept: int, layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_where_memory_becomes_short_the_oldest_go_first() -> None:
    free = iter([1.0, 1.0, 0.2, 0.3])
    kept: Kept[str] = Kept(lambda: next(free, 1.0))
    for key in ("a", "b", "a", "c"):  # at `c` the first look is at little memory, and at enough without `b`
        kept(key, key.upper)
    assert list(kept._entries) == ["a", "c"]
    assert kept("a", lambda: "loaded anew") == "A"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 1.0),
        ({"meminfo": "MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 40 kB\n"}, 0.4),
        ({"meminfo": "MemTotal: 100 kB\nMemAvailable: 40 kB\n", "memory.max": "max", "memory.current": "9"}, 0.4),
        ({"meminfo": "MemTotal: 100 kB\nMemAvailable: 40 kB\n", "memory.max": "10", "memory.current": "9"}, 0.1),
        ({"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "500"}, 0.5),
    ],
)
def test_free_memory_is_the_machines_or_the_containers(files: dict[str, str], free: float, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path / "meminfo", tmp_path) == pytest.approx(free)
    assert 0 < free_memory() <= 1
