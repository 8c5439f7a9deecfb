"""What the tests share: one thread each, and tiny real wav2vec 2.0 checkpoints and data."""

from __future__ import annotations

import os

# Before torch is imported anywhere: two test processes on two cores must not fight for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import pytest
import soundfile
import torch

from helpers.speech import ToneSplit, save_base

torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole sweeps run one after another in one process, from the beginning; all else beside them, jobs last."""
    order = {"test_sweep.py": 0, "test_kill.py": 0, "test_job.py": 2}
    groups = {"test_kill.py": "test_sweep"}
    for item in items:
        if item.path.name in order:
            item.add_marker(pytest.mark.xdist_group(groups.get(item.path.name, item.path.stem)))
    items.sort(key=lambda item: order.get(item.path.name, 1))


@pytest.fixture(scope="session")
def layer_norm_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("layer-norm"), "layer")


@pytest.fixture(scope="session")
def group_norm_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("group-norm"), "group")


@pytest.fixture(scope="session")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus as a user has it: audio files and a table."""
    folder = tmp_path_factory.mktemp("audio")
    rows = ["path,text,split,speaker"]
    for split, count, seed in (("train", 24, 0), ("dev", 7, 1), ("test", 6, 2)):
        tones = ToneSplit(count, seed)
        for index in range(count):
            name = f"{split}-{index}.wav"
            soundfile.write(folder / name, tones[index].samples, 16_000)
            rows.append(f"{name},{tones[index].text},{split},{split}{index % 3}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
