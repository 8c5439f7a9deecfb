"""Pruning rules compared on recorded learning curves, or a finished sweep of yours replayed: `python -m sweeps.replay`.

In: complete curves, from a file or from MLflow. Out: how soon each rule finds the best, what it saves, whether it would
have stopped the winner. Trains nothing, and imports no Ray.
"""
