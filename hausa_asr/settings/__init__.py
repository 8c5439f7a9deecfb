"""Settings as typed values: a sweep's, a recipe's, the data's, and where they are read from.

In: a YAML file, the environment, `--set NAME=VALUE`. Out: a `SweepConfig` in which everything was checked, or one
message with every problem. Imports neither torch nor Ray: a plan is made before anything heavy is loaded.
"""
