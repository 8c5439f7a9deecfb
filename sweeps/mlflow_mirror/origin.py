"""Where a sweep's figures come from, for its run in MLflow: commit, versions of the libraries, and the dataset."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hausa_asr.settings.load import in_ray_job
from hausa_asr.versions import versions

_LIBRARIES = ("torch", "torchaudio", "transformers", "datasets", "ray", "optuna", "mlflow", "jiwer")
_ROOT = Path(__file__).parents[2]
_GIT_S = 5.0


def origin_tags() -> dict[str, str]:
    """The tags by which MLflow shows source and version, and `versions` of the libraries."""
    tags = {
        "mlflow.source.name": "sweeps/run.py",
        "mlflow.source.type": "JOB" if in_ray_job() else "LOCAL",
        "versions": versions(_LIBRARIES),
    }
    commit = _commit()
    return {**tags, "mlflow.source.git.commit": commit} if commit else tags


def _commit() -> str:
    """The commit of this checkout; "" outside one, such as in an installed package or a job's upload."""
    try:
        if not (_ROOT / ".git").exists():
            return ""
        command = ["git", "-C", str(_ROOT), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def profile(report: Mapping[str, Any]) -> str:
    """What MLflow shows of a dataset: hours, utterances and speakers of each split, as JSON.

    Args:
        report: `report.json` of the prepared dataset.
    """
    splits = report.get("splits", {})
    names = ("hours", "utterances", "speakers")
    return json.dumps({split: {name: one[name] for name in names if name in one} for split, one in splits.items()})
