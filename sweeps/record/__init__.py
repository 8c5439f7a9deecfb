"""The ledger: an append-only file of events, what they add up to, and why a trial went on or not.

In: events. Out: a `State` from which everything else is rebuilt after a crash. Imports only the pruning arithmetic and
`hausa_asr`.
"""
