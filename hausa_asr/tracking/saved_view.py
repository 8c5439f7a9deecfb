"""Saved views of the MLflow UI: what its menu of views lists, kept as tags of the experiment.

In: a view's key, name and state. Out: the tag that MLflow 3.17's own UI would write, and the address that opens it.
Called by `tracker` and `reader`.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

_PREFIX = "mlflow.sharedViewState."
_PACKED = "deflate;"
"""Before a state that is compressed; MLflow's databases keep 5,000 characters of an experiment's tag."""


def view_tag(key: str, name: str, state: Mapping[str, Any]) -> tuple[str, str]:
    """The experiment's tag, as (key, value), of a view.

    Args:
        key: what stands in its link.
        name: what the menu shows.
        state: of the UI: filters, columns, charts.
    """
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    now_ms = int(time.time() * 1000)
    content = {"name": name, "createdAt": now_ms, "updatedAt": now_ms, "state": f"{_PACKED}{packed}"}
    return f"{_PREFIX}{key}", json.dumps(content)


def view_path(experiment_id: str, key: str) -> str:
    """The part of the address of a view, with its charts, that follows the server's."""
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={quote(key)}&compareRunsMode=CHART"
