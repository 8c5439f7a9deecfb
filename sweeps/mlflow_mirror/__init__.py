"""MLflow as the ledger's mirror: one parent run per sweep, one child run per trial, written by one thread.

In: the ledger and an open tracker. Out: runs that say what the ledger says, however often MLflow goes away. Nothing in
a sweep waits for this room but its last lines.
"""
