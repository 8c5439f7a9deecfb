"""The folder that an export is: what belongs in it, and how it is written, whole or not at all. Called by `export`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hausa_asr.decoding.confidence import CONFIDENCE_FILE
from hausa_asr.decoding.weights import LM_FILE, weights_file
from hausa_asr.errors import DISK_FAULTS, UserError

WEIGHTS, SETTINGS = "model.safetensors", "settings.json"
NEEDED = {WEIGHTS, SETTINGS, "README.md", "config.json", "vocab.json", "tokenizer_config.json",
           "processor_config.json", "preprocessor_config.json"}  # fmt: skip
LANGUAGE_MODEL = {LM_FILE, weights_file(Path(LM_FILE)).name}
ONNX, INT8 = "model.onnx", "model.int8.onnx"
ONNX_MODELS = {ONNX, f"{ONNX}.data", INT8, f"{INT8}.data"}
CURVE = "learning.png"
POSSIBLE = NEEDED | LANGUAGE_MODEL | ONNX_MODELS | {CONFIDENCE_FILE, CURVE, "special_tokens_map.json",
           "added_tokens.json"}  # fmt: skip
"""All that an export ever holds: a folder with anything else in it is not ours to replace."""


def weights_are_whole(path: Path) -> bool:
    """Whether a safetensors file is all there, by its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return bool(list(file.keys()))
    except SafetensorError:
        return False


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse a folder that would be overwritten, before any work is done.

    Raises:
        UserError: `out` is taken, or with `overwrite` is something else than an export.
    """
    if not out.exists() and not out.is_symlink():
        return
    names = {entry.name for entry in out.iterdir()} if out.is_dir() else {""}
    if not names:
        return
    strange = sorted(names - POSSIBLE)
    if strange or not {WEIGHTS, SETTINGS} <= names:
        reason = f"it also holds {strange[0]}" if strange and strange[0] else "it is not a model that was exported here"
        raise UserError(
            f"The output folder exists, and {reason}, so it is not overwritten.",
            where=out.absolute(),
            fix="Give another folder with --out.",
        )
    if not overwrite:
        raise UserError(
            "The output folder holds an exported model already.",
            where=out.absolute(),
            fix="Add --overwrite to replace it, or give another folder with --out.",
        )


def put_in_place(partial: Path, target: Path) -> None:
    """Let a folder become another one beside it; if that fails, what was there is there again."""
    replaced = target.parent / f".{target.name}.replaced-{os.getpid()}"
    if target.exists():
        target.rename(replaced)
    try:
        partial.rename(target)
    except OSError:
        if replaced.exists():
            replaced.rename(target)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def written_aside(out: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder to write to, which becomes `out` when the block ends well and is removed when it does not."""
    check_out(out, overwrite)
    target = out.resolve()
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        # safetensors makes weights that only their owner can read.
        (partial / WEIGHTS).chmod((partial / "config.json").stat().st_mode)
        for file in partial.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle)
        put_in_place(partial, target)
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        raise UserError(
            f"The model can't be written: {error.strerror}.",
            where=out.absolute(),
            fix="Give another folder with --out.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
