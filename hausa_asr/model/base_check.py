"""Check that a checkpoint is a wav2vec 2.0 one, by its configuration alone and without torch.

A hub id, a folder or `demo` in; a `UserError` or nothing out. Called at the start of a sweep and of a fine-tune, and
before weights are loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hausa_asr.errors import UserError, first_line
from hausa_asr.storage import objects
from hausa_asr.storage.address import is_remote, join
from hausa_asr.storage.fetched import at_hand

DEMO = "demo"
_DEMO_FOLDER = Path(__file__).parent.parent / "demo_base"


def base_path(base: str) -> str:
    """The name that `from_pretrained` takes: `demo` becomes its folder in the package, any other stays.

    What is in a store is fetched, once for all processes of a node.

    Raises:
        FileNotFoundError: there is no such folder in the store.
    """
    if is_remote(base):
        return str(at_hand(base))
    return str(_DEMO_FOLDER) if base == DEMO else base


def check_base(base: str) -> None:
    """Refuse a checkpoint that is missing, without weights, or not a wav2vec 2.0 one.

    Raises:
        UserError: it cannot be used.
    """
    try:
        config = _config(base if is_remote(base) else base_path(base))
    except (OSError, ValueError) as error:
        raise UserError(
            f"The checkpoint cannot be loaded ({first_line(error).rstrip('.')}).",
            where=f"model {base}",
            fix="Give the id of a wav2vec 2.0 checkpoint on the Hugging Face hub, or a folder that has its "
            "config.json and weights. Without a network, download it first.",
        ) from error
    kind = config.get("model_type")
    if kind != "wav2vec2":
        raise UserError(
            f"The checkpoint is a {kind!r} model, not a wav2vec 2.0 one.",
            where=f"model {base}",
            fix="Choose a wav2vec 2.0 checkpoint, such as facebook/wav2vec2-xls-r-300m or facebook/mms-300m.",
        )
    names = _names(base)
    if names and not any(".safetensors" in name or name.startswith("pytorch_model") for name in names):
        raise UserError(
            "The folder has a wav2vec 2.0 configuration but no weights.",
            where=f"model {base}",
            fix="Add its model.safetensors or pytorch_model.bin from the hub.",
        )


def _names(base: str) -> list[str]:
    """The names of a checkpoint's files; of one on the hub none."""
    if is_remote(base):
        return list(objects.listing(base))
    folder = Path(base_path(base))
    return [file.name for file in folder.iterdir()] if folder.is_dir() else []


def _config(path: str) -> dict[str, Any]:
    """Read a checkpoint's config.json, from a folder, or from the hub or its cache.

    Raises:
        OSError, ValueError: it is missing, can't be reached, or is damaged.
    """
    if is_remote(path):
        return _mapping(objects.read(join(path, "config.json")).decode(), path)
    folder = Path(path)
    if folder.is_dir():
        file = folder / "config.json"
        if not file.is_file():
            raise OSError(f"{folder} has no config.json.")
    else:
        from huggingface_hub import hf_hub_download

        file = Path(hf_hub_download(path, "config.json"))
    return _mapping(file.read_text(encoding="utf-8"), str(file))


def _mapping(text: str, file: str) -> dict[str, Any]:
    config = json.loads(text)
    if not isinstance(config, dict):
        raise ValueError(f"{file} does not hold a model's configuration.")
    return config
