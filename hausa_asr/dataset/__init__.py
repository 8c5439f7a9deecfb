"""Prepared datasets: a corpus is decoded, spelled, checked, split and written once, then read by every trial.

In: utterances of one corpus or several, and what to keep. Out: a folder that is complete or absent, a report on what
was kept and what was refused, and `PreparedSplit`s that a fine-tune reads. Imports neither torch nor MLflow.
"""
