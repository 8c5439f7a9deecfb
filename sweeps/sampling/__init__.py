"""What is tried next: the space as Optuna distributions, and a study that says what the ledger says.

In: settings, trials of the ledger and of earlier sweeps. Out: settings that were not tried before. The only room that
imports Optuna.
"""
