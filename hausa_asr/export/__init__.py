"""A trial to a model folder that `transformers` loads, with its model card; and the best trial that MLflow knows.

In: a checkpoint and a `Card`, or an experiment. Out: a folder that is complete or absent. Imports MLflow only through
`tracking`, and no Ray.
"""
