"""MLflow: what a sweep writes there and what is read back, on a SQLite file or a server that may go away.

In: a tracking URI. Out: a `Tracker`, runs, metrics, artifacts. The only room that imports MLflow; it imports no other.
"""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it at import: else usage goes to a third party
