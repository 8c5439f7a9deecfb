"""Who won: the finalists' runs, their word errors, the verdict with intervals, and `result.json`.

In: a ledger whose trials have ended, and a function that scores checkpoints. Out: the winner, exported and published to
MLflow. Imports no Ray: the scorer is handed in.
"""
