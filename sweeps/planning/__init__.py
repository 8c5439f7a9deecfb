"""Predict what a sweep takes, before it starts and while it runs: slots, hours, money, disk.

In: settings, nodes, earlier sweeps, the ledger's state. Out: how many slots fit, a prediction, a forecast, refusals
that name a change that would fit, which finalists' runs are due and what is kept of the budget for them. It must not
import Ray, torch, numpy or the rooms above it: a plan takes a fraction of a second.
"""
