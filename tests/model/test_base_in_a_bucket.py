"""A base checkpoint and a prepared dataset that somebody has put into a bucket, by whatever means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hausa_asr.dataset.prepared import load_prepared
from hausa_asr.errors import UserError
from hausa_asr.model.base_check import base_path, check_base
from hausa_asr.storage import objects
from hausa_asr.storage.address import scratch


def test_a_base_checkpoint_is_checked_without_its_weights_and_fetched_once(bucket: str, layer_norm_base: Path) -> None:
    base = f"{bucket}/base"
    with pytest.raises(UserError, match="cannot be loaded"):
        check_base(base)
    for file in layer_norm_base.iterdir():
        if not file.name.endswith(".safetensors"):
            objects.write(f"{base}/{file.name}", file.read_bytes())
    with pytest.raises(UserError, match="no weights"):
        check_base(base)
    for file in layer_norm_base.glob("*.safetensors"):
        objects.write(f"{base}/{file.name}", file.read_bytes())
    check_base(base)
    assert not (scratch() / ".fetched").exists(), "its configuration is enough"
    for _ in range(2):
        here = Path(base_path(base))
    assert {file.name for file in here.iterdir()} == {file.name for file in layer_norm_base.iterdir()}
    [line] = (scratch() / ".fetched/log.jsonl").read_text().splitlines()
    assert json.loads(line)["bytes"] == sum(file.stat().st_size for file in layer_norm_base.iterdir())


def test_no_dataset_at_an_address_is_said(bucket: str) -> None:
    with pytest.raises(UserError, match="no such prepared dataset") as missing:
        load_prepared(f"{bucket}/none")
    assert missing.value.where == f"{bucket}/none"
