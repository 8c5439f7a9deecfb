"""All that imports Ray: the cluster, warm slots with their workers, and the Tune run that drives them.

In: a `Sweep`, its agenda, its MLflow mirror and its table of trials. Out: trials trained and judged, every event in the
ledger; checkpoints scored at the end. Only `run.py` imports this room, and nothing below it knows of Ray.
"""
