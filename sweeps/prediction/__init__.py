"""Predict where a trial will end among the trials of its sweep, from its ranks so far and from its settings.

In: scores at the rungs, WERs of finished trials, settings as numbers. Out: a mean and a spread for every trial, and
which new settings are worth a try. It is arithmetic on numbers, so that a sweep and the replay use the same code. It
must not import Ray, Optuna or any other room of `sweeps` but pruning, and reads no files and no clock.
"""
