"""Register an exported model in MLflow's model registry, so that a service loads it by name and alias.

In: an open tracking server, an export's folder. Out: a version of a registered model, with MLflow's transformers
flavour: `mlflow.transformers.load_model("models:/NAME@ALIAS")` gives a pipeline. Called by `best-model --register`.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mlflow.exceptions import MlflowException

from hausa_asr.errors import UserError, first_line
from hausa_asr.quiet import quiet
from hausa_asr.tracking.store import environment
from hausa_asr.tracking.tracker import Tracker
from hausa_asr.utterance import SAMPLE_RATE
from hausa_asr.versions import requirements

ARTIFACT = "registered_model"
"""How the folder of the version's files begins in the run; a digest follows, so that no version is replaced."""
_NAME = re.compile(r"[^/:\"'%.][^/:\"'%]*")


def check_names(name: str, alias: str | None) -> None:
    """Refuse names that MLflow would refuse after all the work.

    Raises:
        UserError: they can't be used.
    """
    if not _NAME.fullmatch(name.strip()):
        raise UserError(
            f"The name {name!r} can't be used: no /, :, % or quotes, and no dot at its beginning.",
            fix="Give another --register.",
        )
    if alias is not None and (not re.fullmatch(r"[\w-]+", alias) or re.fullmatch(r"v\d+|latest", alias, re.IGNORECASE)):
        raise UserError(
            f"The alias {alias!r} can't be used: letters, digits, - and _; latest and v1 are MLflow's own.",
            fix="Give another --alias, such as champion.",
        )


def register(
    tracker: Tracker, run_id: str, folder: Path, name: str, alias: str | None, tags: Mapping[str, str], about: str
) -> str:
    """Register a model.

    Args:
        tracker: the experiment, open for writing.
        run_id: the run that the version belongs to; its artifacts hold the files.
        folder: an export.
        name: of the registered model, which is made if it is missing.
        alias: that is to point at the new version; None for none.
        tags: of the version.
        about: the version's description.

    Returns:
        The version's number.

    Raises:
        UserError: the server has no registry, or refuses it.
    """
    client = tracker.client
    with tempfile.TemporaryDirectory(prefix="hausa-asr-register-") as made:
        _save(folder, Path(made) / "model", name, tags)
        with (folder / "model.safetensors").open("rb") as weights:
            place = f"{ARTIFACT}-{hashlib.file_digest(weights, 'sha256').hexdigest()[:8]}"
        tracker.log_folder(run_id, Path(made) / "model", place)
    try:
        try:
            client.create_registered_model(name)
        except MlflowException as fault:
            if fault.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = client.create_model_version(
            name, source=f"runs:/{run_id}/{place}", run_id=run_id, tags=dict(tags), description=about or None
        )
        if alias is not None:
            client.set_registered_model_alias(name, alias, version.version)
    except MlflowException as fault:
        raise UserError(
            f"The model is in {folder}, but can't be registered: {first_line(fault)}.", where=tracker.shown_uri,
            fix="Give a tracking server with a model registry, and a name that may be written.",
        ) from fault  # fmt: skip
    return str(version.version)


def _save(folder: Path, out: Path, name: str, tags: Mapping[str, str]) -> None:
    """Write an export as a model of MLflow's transformers flavour."""
    import mlflow.transformers
    from huggingface_hub import ModelCard
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from transformers import pipeline

    # MLflow remarks that such a model is on no hub.
    with quiet("mlflow.transformers"), environment({"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}):
        recognise = pipeline("automatic-speech-recognition", model=str(folder))
        recognise.model.name_or_path = (
            f"./{name}"  # not this machine's folder; nor an id, which the hub would be asked for
        )
        mlflow.transformers.save_model(
            transformers_model=recognise,
            path=str(out),
            task="automatic-speech-recognition",
            signature=ModelSignature(
                inputs=Schema([TensorSpec(np.dtype("float32"), (-1,))]), outputs=Schema([ColSpec("string")])
            ),
            input_example=np.zeros(SAMPLE_RATE, dtype=np.float32),
            pip_requirements=requirements(("torch", "transformers")),
            metadata=dict(tags),
            model_card=ModelCard((folder / "README.md").read_text(encoding="utf-8")),
        )
