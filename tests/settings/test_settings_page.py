"""docs/settings.md matches the typed settings, and describes every one in a sentence."""

from __future__ import annotations

import re

from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.load import load
from hausa_asr.settings.page import PAGE, page

CONFIGS = sorted((PAGE.parents[1] / "sweeps/configs").glob("*.yaml"))
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_is_current() -> None:
    assert page() == TEXT, "write it again: python -m hausa_asr.settings.page"


def test_every_setting_has_a_row_with_its_meaning() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \|.* \| ([^|]*) \|$", TEXT, re.M))
    assert {f"finetune.{name}" for name in FinetuneConfig.__dataclass_fields__} <= set(rows)
    assert {"storage", "search.trials", "pruning.rank_by", "cluster.address", "data.path", "data.join.N.use"} <= set(
        rows
    )
    bad = [name for name, meaning in rows.items() if not re.fullmatch(r"[A-Z`].*\.", meaning) or ">>>" in meaning]
    assert not bad, f"not a sentence: {bad}"


def test_the_searched_ones_are_marked_and_no_others() -> None:
    rows = dict(re.findall(r"^\| `finetune\.(\w+)` \|.* \| (yes|no) \| [^|]* \|$", TEXT, re.M))
    assert set(rows) == {"length_epochs", *FinetuneConfig.__dataclass_fields__}
    assert rows["lr_peak"] == "yes" and rows["seed"] == "no"
    searched = {name for config in CONFIGS for name in load(config, environment={}).space}
    assert searched <= {name for name, answer in rows.items() if answer == "yes"}
