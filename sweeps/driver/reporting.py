"""Write a sweep's report from what is in its folder: at its end, again at any time, or while it runs.

In: the ledger's state, the settings and, once there is one, `result.json`. Out: `report.html`. Called by `closing` and
by `run --report`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from hausa_asr.dataset.parts import dev_part
from hausa_asr.dataset.prepared import Prepared, prepared_if_same
from hausa_asr.errors import UserError
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.storage.address import here, join
from hausa_asr.utterance import SAMPLE_RATE
from sweeps.driver.sweep_folder import saved
from sweeps.record.folders import is_driven
from sweeps.record.names import RESULT_FILE
from sweeps.record.state import State
from sweeps.report.page import Findings, write_report
from sweeps.verdict.diagnosis import view_of
from sweeps.verdict.verdict import Verdict
from sweeps.wording import many

_EVERY_S = 20.0
"""How often the report of a running sweep is written again."""


def report_of(config: SweepConfig, state: State, folder: Path, prepared: Prepared | None, *, live: bool) -> Path:
    """Write the report.

    Args:
        config: the sweep's settings.
        state: what its ledger adds up to.
        folder: the sweep's.
        prepared: its prepared dataset, for sounds and the real-time factor; None if it can't be had.
        live: a driver is at work on it.

    Raises:
        OSError: it can't be written.
    """
    result = _result(folder)
    dev, part_s = prepared.splits["dev"] if prepared else None, config.recipe().dev_part_s
    dev_s = float(dev_part(dev, part_s).n_samples.sum()) / SAMPLE_RATE if dev is not None else None
    best, base = (result.get(name) or {} for name in ("best", "baseline"))
    found = Findings(
        verdict=Verdict.from_json(result["verdict"]) if result.get("verdict") else None,
        test=_test_scores(result),
        headline=result.get("headline", ""),
        stopped=stopped_in_words(state, result.get("chance_missed")),
        with_lm=(result.get("language_model") or {}).get("sentence", ""),
        growth=(result.get("data_growth") or {}).get("sentence", ""),
        diagnosis=view_of(folder, best["run"], base.get("run"), dev, part_s) if best else None,
    )
    return write_report(config, state, folder, found, dev_s=dev_s, live=live)


def stopped_in_words(state: State, chance: float | None) -> str:
    """What pruning may have cost; "" if no trial was stopped for good.

    Args:
        state: the sweep.
        chance: that one of the stopped trials would have ended better than the best; None if it is not known.
    """
    count = len(state.stopped)
    if not count or chance is None:
        return ""
    share = f"about {100 * chance:.0f} %" if chance >= 0.01 else "under 1 %"
    return f"{many(count, 'trial')}; the chance that one of them would have had a lower dev WER: {share}"


def _test_scores(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Test scores by setting, means over its seeds; without finalists those of winner and baseline."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for run in result.get("finalists", []):
        if "test_wer" in run and "train_share" not in run["settings"]:
            runs.setdefault(run["of"], []).append(run)
    if not runs:
        both = [result.get(name) or {} for name in ("best", "baseline")]
        runs = {one["id"]: [one] for one in both if one.get("test_wer") is not None}
    return {
        of: {"wer": fmean(one["test_wer"] for one in some), "cer": fmean(one["test_cer"] for one in some)}
        for of, some in runs.items()
    }


def _result(folder: Path) -> dict[str, Any]:
    """What the sweep's end found; {} before that, and if it can't be read."""
    try:
        return dict(json.loads((folder / RESULT_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def report_again(storage: str, name: str, say: Callable[[str], None]) -> None:
    """Write a sweep's report; of a running one again and again, until it ends.

    Args:
        storage: the folder of all sweeps.
        name: the sweep's.
        say: is given each line for the console.

    Raises:
        UserError: there is no such sweep, or the report can't be written.
    """
    live, said = True, False
    while live:
        live = is_driven(here(join(storage, name)))
        file = _written(storage, name, live)
        if live and not said:
            say(f"report    {file}, written again every {_EVERY_S:.0f} s while the sweep runs; Ctrl-C ends this")
            said = True
        try:
            time.sleep(_EVERY_S if live else 0)
        except KeyboardInterrupt:
            file, live = _written(storage, name, live=False), False
    if not said:
        say(f"report    {file}")


def _written(storage: str, name: str, live: bool) -> Path:
    state, config = saved(storage, name)
    folder = here(join(storage, name))
    try:
        return report_of(config, state, folder, prepared_if_same(state.prepared, state.fingerprint), live=live)
    except OSError as error:
        raise UserError(f"The report can't be written: {error}.", where=folder) from error
