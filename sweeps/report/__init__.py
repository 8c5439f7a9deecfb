"""The report of a sweep: one HTML page with its figures, charts and sounds inside.

In: the ledger's state and what the sweep's end found. Out: `report.html`, by the templates in `templates/`. Imports
neither Ray nor MLflow.
"""
