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

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class ModelSettings(Strict):
    """The base checkpoint: `demo`, a hub id such as facebook/wav2vec2-xls-r-300m, or a folder."""

    base: str = Field("demo", min_length=1, description="the checkpoint that every trial starts from")


class SearchSettings(Strict):
    """How many trials, the baseline among them, and how they are chosen."""

    trials: int = Field(12, ge=1, description="how many settings are tried; a budget may end the search before")
    seed: int = Field(0, ge=0, description="of all that the search draws")
    random_trials: int = Field(5, ge=0, description="drawn at random before the sampler models anything")
    warm_start: list[str] = Field(
        [], description="earlier sweeps of the storage, or `mlflow:EXPERIMENT`, whose trials the sampler learns from"
    )


class PruningSettings(Strict):
    """Asynchronous successive halving with promotion, on rungs in seconds of audio trained on."""

    rule: Literal["asha", "none"] = Field("asha", description="`none` runs every trial to its end")
    rank_by: Literal["auto", "loss", "wer"] = Field(
        "loss", description="eval loss, WER, or `auto`: at each rung loss until most trials have left the CTC plateau"
    )
    reduction: int = Field(4, ge=2, description="one trial in this many passes a rung")
    first_rung: float = Field(0.2, gt=0, lt=1, description="the first rung, as a share of a trial's length")
    finish_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="when no new setting is left, the best that wait go on until so large a share of all has ended",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_over_what_older_versions_had(cls, values: Any) -> Any:
        """`audit_share` went with the audit; sweeps that were saved with it still go on."""
        return {k: v for k, v in values.items() if k != "audit_share"} if isinstance(values, Mapping) else values


class BudgetSettings(Strict):
    """What a sweep may take, finalists included; whatever is reached first ends it. Nothing is set by default."""

    hours: float | None = Field(None, gt=0, description="GPU-hours; CPU-hours where trials have no GPU")
    money: float | None = Field(None, gt=0, description="in the currency of price_per_hour, which it needs")
    wall_s: float | None = Field(None, gt=0, description="seconds that a driver is at work, resumes added up")
    price_per_hour: float | None = Field(None, ge=0, description="of one GPU, or of one CPU where trials have no GPU")


class FinalistSettings(Strict):
    """The best settings and the baseline are trained again on fresh seeds, and the winner is named by those."""

    k: int = Field(3, ge=0, description="how many settings beside the baseline; 0 names the lowest dev WER instead")
    seeds: int = Field(3, ge=1, description="fresh seeds for each of them")
    length_s: float | None = Field(None, gt=0, description="seconds of audio for each; a trial's length by default")


class ResourceSettings(Strict):
    """What one trial takes."""

    workers_per_trial: int = Field(1, ge=1, description="Ray Train workers that share one trial")
    gpus_per_worker: float = Field(0, ge=0, description="GPUs of each; a part of one is shared")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs of each, and PyTorch threads")
    audio_s_per_s: float | None = Field(
        None, gt=0, description="seconds of audio that one trial trains on per second, for the plan; measured else"
    )


class MlflowSettings(Strict):
    """Where every trial is recorded."""

    uri: str = Field("sqlite:///mlflow.db", min_length=1, description="a SQLite file, or the address of a server")
    experiment: str = Field("hausa-asr", min_length=1, description="where the sweep's runs are; made if missing")


class ClusterSettings(Strict):
    """The Ray cluster: an `address`, else the one that RAY_ADDRESS or a Ray job gives, else a local one."""

    address: str | None = Field(None, description="of a Ray cluster, such as `auto` or 10.0.0.1:6379")
    local_cpus: int | None = Field(None, ge=1, description="CPUs of the local Ray; all of them by default")
    startup_timeout_s: float = Field(
        300.0, gt=0, description="seconds until a worker has taken a trial, else its slot is started anew"
    )
    nodes: list[dict[str, float]] = Field(
        [], description="for --plan: nodes to plan for, such as [{CPU: 32, GPU: 8}], in place of those there are"
    )


class SweepConfig(Strict):
    """All settings of a sweep."""

    name: str | None = Field(None, pattern=_NAME, description="of the sweep; by default the file's name and the time")
    storage: str = Field("runs", min_length=1, description="where sweeps, prepared data and caches are")
    max_checkpoint_gb: float | None = Field(
        None, gt=0, description="what a sweep's checkpoints may take; above it losers' optimizer states are dropped"
    )
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    baseline: dict[str, Any] = Field(PUBLISHED_RECIPE, description="trial 0; by default the published Hausa run")
    starting_points: dict[str, dict[str, Any]] = Field(
        {}, description="recipes by name that are tried after the baseline; `published` stands for six in print"
    )
    space: dict[str, list[Dimension]] = Field({}, description="the settings to search, each a range or choices")
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
        return FinetuneConfig(**{**self.finetune.model_dump(), **(settings or {})})

    def to_yaml(self) -> str:
        """The settings as a file that `load` reads again."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)
