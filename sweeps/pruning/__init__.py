"""Decide which trials go on: rungs, ranking, promotion, the second look, divergence.

In: evaluations of trials. Out: decisions. It is arithmetic on numbers, so that a sweep and the replay use the same
code. It must not import Ray or any other room of `sweeps`, and reads no files and no clock.
"""
