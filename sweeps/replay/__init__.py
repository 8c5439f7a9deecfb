"""Compare pruning rules on recorded learning curves, or replay a finished sweep: `python -m sweeps.replay`.

In: complete curves, from a file or from MLflow. Out: how soon each rule finds the best setting, how much work it saves,
and whether it would have stopped the winner. It trains nothing, and must not import Ray, torch or the ledger.
"""
