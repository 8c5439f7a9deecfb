"""The names of the files in a sweep's folder, each written down once."""

from __future__ import annotations

SETTINGS_FILE = "sweep.yaml"
LEDGER_FILE = "ledger.jsonl"
LOG_FILE = "sweep.log"
LOCK_FILE = ".lock"
RESULT_FILE = "result.json"
REPORT_FILE = "report.html"
EXPORT_FOLDER = "export"
SOUP_FOLDER = "soup"
DIAGNOSIS_FOLDER = "diagnosis"
TRIALS_FOLDER = "trials"
