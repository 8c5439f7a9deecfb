"""docs/settings.md is what the typed settings are now, and says something of every one."""

from __future__ import annotations

import re

from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.page import PAGE, page
from hausa_asr.settings.sweep import SweepConfig

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_is_current() -> None:
    assert page() == TEXT, "write it anew: python -m hausa_asr.settings.page"


def test_every_setting_has_a_row_with_its_meaning() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \|.* \| ([^|]*) \|$", TEXT, re.M))
    assert {f"finetune.{name}" for name in FinetuneConfig.__dataclass_fields__} <= set(rows)
    assert {"storage", "search.trials", "pruning.rank_by", "cluster.address", "data.path"} <= set(rows)
    empty = [name for name, meaning in rows.items() if not meaning.strip()]
    assert not empty, f"no description: {empty}"


def test_the_searched_ones_are_marked_and_no_others() -> None:
    rows = dict(re.findall(r"^\| `finetune\.(\w+)` \|.* \| ([^|]*) \|$", TEXT, re.M))
    assert rows["lr_peak"].startswith("searched.") and not rows["seed"].startswith("searched.")
    assert set(SweepConfig().space) <= {name for name, meaning in rows.items() if meaning.startswith("searched.")}
