"""The report of a sweep: one HTML page with its figures and pictures inside.

In: the ledger's state and the finalists' verdict. Out: `report.html`. Imports neither Ray nor MLflow; matplotlib only
in `pictures`.
"""
