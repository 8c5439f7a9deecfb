"""Who goes on: rungs, ranking, promotion, the second look, divergence. Arithmetic on numbers.

In: evaluations of trials. Out: decisions. Knows no files, no clock and no Ray, so a sweep and the replay use the same
code. Imports only the settings and the recipe.
"""
