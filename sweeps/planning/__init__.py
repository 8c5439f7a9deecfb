"""What a sweep will take before it starts, and what is left of it while it runs: slots, hours, money, disk.

In: settings, nodes, earlier sweeps, the ledger's state. Out: how many slots fit, a prediction, a forecast, and refusals
that name what would do. Imports neither Ray nor torch: a plan takes a fraction of a second.
"""
