"""The search: Ray Tune and Optuna over fine-tunes of `hausa_asr`, with a ledger, pruning by eval loss and MLflow."""
