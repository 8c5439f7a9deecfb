"""All settings of a sweep as typed models: what each may be, its default, what it means.

In: plain values, as YAML has them. Out: a `SweepConfig`. Read by `load`, and by `page`, which writes docs/settings.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.data import DataSettings, Strict
from hausa_asr.settings.published import PUBLISHED, PUBLISHED_RECIPE, PUBLISHED_STARTING_POINTS
from hausa_asr.settings.recipe import Dimension, FinetuneSettings
from hausa_asr.settings.resources import ResourceSettings

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class ModelSettings(Strict):
    """The base checkpoint: `demo`, a hub id such as facebook/wav2vec2-xls-r-300m, or a folder."""

    base: str = Field(
        "demo",
        min_length=1,
        description="The checkpoint that every trial starts from, unless `space.base` names several.",
    )
    license: str = Field("", max_length=200, description="Its licence, which the card of an exported model then names.")


class SearchSettings(Strict):
    """How many trials a sweep has, the baseline among them, and how their settings are chosen."""

    trials: int = Field(12, ge=1, description="How many recipes are tried; a budget may end the search earlier.")
    seed: int = Field(0, ge=0, description="The random seed of the search.")
    random_trials: int = Field(
        5,
        ge=0,
        description="Trials that come before the sampler: the baseline, starting points and random draws.",
    )
    sampler: Literal["gp", "tpe"] = Field(
        "gp",
        description="After the random trials: `gp` tries what is expected to gain most over the best so far, by a "
        "Gaussian process over settings; `tpe` is Optuna's TPE, which learns where each trial is expected to end.",
    )
    warm_start: list[str] = Field(
        [], description="Earlier sweeps of the storage, or `mlflow:EXPERIMENT`, whose trials the sampler learns from."
    )


class PruningSettings(Strict):
    """Asynchronous successive halving with promotion, on rungs in seconds of audio trained on."""

    rule: Literal["asha", "none"] = Field(
        "asha", description="`asha` stops weak trials early; `none` runs every trial to its end."
    )
    rank_by: Literal["auto", "loss", "wer", "blend", "predicted"] = Field(
        "predicted",
        description="Rank by where trials are expected to end (`predicted`), by their ranks in loss, CER and WER "
        "together (`blend`), or by one figure; `auto`: by loss until most trials have left the CTC plateau, then by "
        "WER.",
    )
    reduction: int = Field(3, ge=2, description="One trial in this many passes a rung, rounded up.")
    first_rung: float = Field(0.2, gt=0, lt=1, description="The first rung, as a share of a trial's length.")
    finish_share: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Once all trials have started, the best paused ones resume until this share of all has finished.",
    )

    @model_validator(mode="before")
    @classmethod
    def _ignore_what_older_versions_had(cls, values: Any) -> Any:
        """Ignore `audit_share`, which older versions had, so that their settings files and saved sweeps still load."""
        return {k: v for k, v in values.items() if k != "audit_share"} if isinstance(values, Mapping) else values


class BudgetSettings(Strict):
    """What a sweep may cost, finalists included. The first limit that is reached ends it; by default there is none."""

    hours: float | None = Field(None, gt=0, description="GPU-hours, or CPU-hours if trials have no GPU.")
    money: float | None = Field(
        None, gt=0, description="An amount in the currency of `price_per_hour`, which must be set too."
    )
    wall_s: float | None = Field(
        None, gt=0, description="Seconds with a driver running; time between a stop and a resume is not counted."
    )
    price_per_hour: float | None = Field(
        None, ge=0, description="The price of one GPU-hour, or of one CPU-hour if trials have no GPU."
    )


class FinalistSettings(Strict):
    """Train the best recipes and the baseline again on fresh seeds; these runs decide the winner."""

    k: int = Field(
        3, ge=0, description="How many recipes beside the baseline; with 0 the lowest dev WER of the search wins."
    )
    seeds: int = Field(3, ge=1, description="Fresh seeds for each of them.")
    length_s: float | None = Field(
        None, gt=0, description="Seconds of audio that each run trains on; by default a trial's length."
    )
    soup: bool = Field(
        False,
        description="Average the weights of the best runs that share a seed, and export that if dev WER clearly falls.",
    )
    language_model: str | None = Field(
        None,
        min_length=1,
        description="Score the finalists with a language model too: an ARPA file, or `train` for an n-gram of the "
        "transcripts of train. Greedy WER selects all the same.",
    )
    data_growth: bool = Field(
        False,
        description="Train the best recipe again on a quarter and on half of train, and forecast the dev WER of twice "
        "the hours.",
    )


class MlflowSettings(Strict):
    """Where every trial is recorded."""

    uri: str = Field(
        "sqlite:///mlflow.db", min_length=1, description="A SQLite file, or the address of an MLflow server."
    )
    experiment: str = Field(
        "hausa-asr", min_length=1, description="The MLflow experiment for the sweep's runs; made if missing."
    )


class ClusterSettings(Strict):
    """The Ray cluster: an `address`, else the one that RAY_ADDRESS or a Ray job gives, else a local one."""

    address: str | None = Field(None, description="The address of a Ray cluster, such as `auto` or 10.0.0.1:6379.")
    local_cpus: int | None = Field(None, ge=1, description="CPUs of the local Ray; by default all of them.")
    startup_timeout_s: float = Field(
        300.0, gt=0, description="Seconds a worker has to start on a trial; after that its slot is restarted."
    )
    report_timeout_s: float = Field(
        600.0,
        gt=0,
        description="Seconds without a report after which workers count as hung and are restarted: at least ten times "
        "the longest wait so far between two reports.",
    )
    first_report_timeout_s: float = Field(
        21600.0,
        gt=0,
        description="The same for a trial's first report, whose wait includes set-up, such as making the feature "
        "cache. Once trials of the same base checkpoint have reported, ten times what they took, if that is less.",
    )
    crashes_per_trial: int = Field(
        3, ge=1, description="A trial fails after this number of crashes, if other trials go on meanwhile."
    )
    crashes_per_node: int = Field(
        3, ge=2, description="A node gets no more trials after this number of crashes in a row, if there are others."
    )
    crashes_in_a_row: int = Field(
        10,
        ge=2,
        description="The sweep pauses itself after this number of crashes in a row without a report in between; with "
        "many slots after two per slot.",
    )
    nodes: list[dict[str, float]] = Field(
        [], description="For `--plan`: the nodes to plan for, such as [{CPU: 32, GPU: 8}], in place of the real ones."
    )


class SweepConfig(Strict):
    """All settings of a sweep."""

    name: str | None = Field(
        None, pattern=_NAME, description="The sweep's name; by default the settings file's name and the time."
    )
    storage: str = Field(
        "runs",
        min_length=1,
        description="The folder for sweeps, prepared data and caches: a path, or an address such as s3://bucket/runs.",
    )
    max_checkpoint_gb: float | None = Field(
        None,
        gt=0,
        description="Disk space for a sweep's checkpoints; above it the optimizer states of losing trials are deleted.",
    )
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    baseline: dict[str, Any] = Field(
        PUBLISHED_RECIPE,
        description="The recipe of trial 0, which all others are compared with; by default the published Hausa run.",
    )
    starting_points: dict[str, dict[str, Any]] = Field(
        {}, description="Recipes by name, tried right after the baseline; `published` means the six published ones."
    )
    space: dict[str, list[Dimension]] = Field(
        {}, description="The settings to search, each a range or a list of choices."
    )
    search: SearchSettings = SearchSettings()
    pruning: PruningSettings = PruningSettings()
    budget: BudgetSettings = BudgetSettings()
    finalists: FinalistSettings = FinalistSettings()
    resources: ResourceSettings = ResourceSettings()
    mlflow: MlflowSettings = MlflowSettings()
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _money_has_a_price(self) -> SweepConfig:
        if self.budget.money is not None and not self.budget.price_per_hour:
            raise ValueError("budget.money needs budget.price_per_hour")
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_dimension_is_a_list(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("space"), Mapping):
            space = {k: v if isinstance(v, list) else [v] for k, v in values["space"].items()}
            values = {**values, "space": space}
        if isinstance(values, Mapping) and values.get("starting_points") == PUBLISHED:
            values = {**values, "starting_points": PUBLISHED_STARTING_POINTS}
        return values

    def recipe(self, settings: Mapping[str, Any] | None = None) -> FinetuneConfig:
        """The fixed recipe, with some of its settings replaced."""
        values = {**self.finetune.model_dump(exclude={"length_epochs"}), **(settings or {})}
        return FinetuneConfig(**{**values, "base": values["base"] or self.model.base})

    @property
    def bases(self) -> list[str]:
        """The base checkpoints of all trials: one, unless the space or a starting point names several."""
        given = [self.baseline, *self.starting_points.values()]
        searched = [choice for one in self.space.get("base", []) for choice in one.choices or []]
        every = [*(self.recipe(settings).base for settings in given), *(searched or [self.recipe().base])]
        return list(dict.fromkeys(every))

    def with_length(self, train_s: float) -> SweepConfig:
        """The settings with `finetune.length_epochs`, if that is given, in seconds of a train split of this length."""
        if self.finetune.length_epochs is None:
            return self
        length_s = round(self.finetune.length_epochs * train_s, 1)
        return self.model_copy(update={"finetune": self.finetune.model_copy(update={"length_s": length_s})})

    def to_yaml(self) -> str:
        """The settings as a file that `load` reads again."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)
