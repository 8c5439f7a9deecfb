"""The search: which wav2vec 2.0 fine-tune gives the lowest Hausa word error rate?

`run.py` is the entry point. Rooms, from top to bottom: `on_ray` (all that imports Ray), `driver` (what slots do next),
`report`, `mlflow_mirror`, `verdict`, `planning`, `sampling`, `replay`, `record` (the ledger), `pruning`, `wording.py`.
A room imports only rooms below it, and all may import `hausa_asr`, which imports none of them.
"""
