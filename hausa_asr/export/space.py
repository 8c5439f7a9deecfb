"""Write the page of `serve` as a folder that is a Hugging Face Space: model, program and requirements in one.

In: an exported folder. Out: a folder that runs by `python app.py`, here or on the hub. Called by `best-model --space`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import hausa_asr
from hausa_asr.errors import UserError, first_line
from hausa_asr.export.folder import LANGUAGE_MODEL, ONNX_MODELS, put_in_place
from hausa_asr.serving.page import check_gradio

_NEEDS = {"torch", "transformers", "safetensors", "numpy", "scipy", "soundfile", "av", "jiwer", "rapidfuzz", "gradio"}
_WITH_LM = {"flashlight-text"}
_FILES = {"app.py", "README.md", "requirements.txt", "model", "hausa_asr", "__pycache__"}
"""All that a Space ever holds: a folder with anything else in it, such as `.git`, is not ours to replace."""
_FIRST_LINE = '"""The page of this Space: a recording in, its text out. Written by `hausa-asr best-model --space`."""'
_APP = (
    _FIRST_LINE
    + """

import os
from pathlib import Path

from hausa_asr.model.recognizer import Recognizer
from hausa_asr.serving.page import Limits, serve

if __name__ == "__main__":
    host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"  # the hub has a proxy in front
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    model = Recognizer(Path(__file__).parent / "model")
    serve(model, "Hausa speech to text", host, port, Limits(), lambda address: print(f"page   {address}", flush=True))
"""
)
_README = """---
title: Hausa speech to text
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
pinned: false
---

A recording in, its text out, each word with its times. `model/` has the model and its card, which says what it was
trained on and how good it is. On this machine: `pip install -r requirements.txt`, then `python app.py`.
"""


def check_space(space: Path, out: Path, overwrite: bool) -> None:
    """Refuse, before any work is done, a folder that can't be written or would be lost.

    Raises:
        UserError: it is taken, it is the model's own, or gradio is missing.
    """
    check_gradio()
    _requirements(has_lm=False)
    inside = space.resolve()
    if inside == out.resolve() or inside in out.resolve().parents or out.resolve() in inside.parents:
        raise UserError("A Space and its model need two folders.", where=space, fix="Give another with --space.")
    there = next(folder for folder in (inside, *inside.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError("No folder can be written there.", where=space, fix="Give another with --space.")
    if not space.exists() or (space.is_dir() and not any(space.iterdir())):
        return
    app = space / "app.py"
    ours = app.is_file() and app.read_text(encoding="utf-8", errors="replace").startswith(_FIRST_LINE)
    strange = sorted({one.name for one in space.iterdir()} - _FILES) if ours else []
    if not ours or strange or not overwrite:
        why = " already." if ours else ", and is not one that was written here."
        if strange:
            why = f", and also holds {strange[0]}, so it is not overwritten."
        raise UserError(
            f"The folder for the Space exists{why}",
            where=space.absolute(),
            fix="Give another with --space." if strange or not ours else "Add --overwrite to replace it.",
        )


def write_space(model: Path, space: Path) -> None:
    """Write a Space.

    Args:
        model: an exported folder. Its ONNX is left out, since the page uses PyTorch.
        space: the folder to write, in place of an earlier Space.

    Raises:
        UserError: it can't be written.
    """
    target = space.resolve()
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        shutil.copytree(model, partial / "model", ignore=shutil.ignore_patterns(*ONNX_MODELS))
        source = Path(hausa_asr.__file__).parent
        shutil.copytree(source, partial / "hausa_asr", ignore=shutil.ignore_patterns("__pycache__"))
        has_lm = any((model / name).exists() for name in LANGUAGE_MODEL)
        (partial / "requirements.txt").write_text("\n".join(_requirements(has_lm)) + "\n", encoding="utf-8")
        (partial / "app.py").write_text(_APP, encoding="utf-8")
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        (partial / "README.md").write_text(_README.format(gradio=version("gradio"), python=python), encoding="utf-8")
        put_in_place(partial, target)
    except OSError as error:
        raise UserError(
            f"The Space can't be written: {error.strerror or first_line(error)}.", where=space,
            fix="Give another folder with --space.",
        ) from error  # fmt: skip
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _requirements(has_lm: bool) -> list[str]:
    """This project's requirements, but only those that the page uses.

    Raises:
        UserError: it is not installed, so they are not known.
    """
    wanted = _NEEDS | (_WITH_LM if has_lm else set())
    found = {}
    try:
        listed = requires("hausa-asr-sweeps") or []
    except PackageNotFoundError as error:
        raise UserError("The project is not installed, so a Space's requirements are not known.",
                        fix="Install it with `pip install -e .`.") from error  # fmt: skip
    for line in listed:
        requirement = line.partition(";")[0].strip()
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if name in wanted:
            found[name] = requirement
    return [found[name] for name in sorted(found)]
