"""Settings: what counts, what is refused, and that every problem is named at once."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from hausa_asr.errors import UserError
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.load import load, make_absolute
from hausa_asr.settings.recipe import RECIPE_FIELDS, check_setting
from hausa_asr.settings.sweep import SweepConfig

CONFIGS = sorted((Path(__file__).parents[2] / "sweeps/configs").glob("*.yaml"))


def test_every_setting_of_a_recipe_has_its_limits() -> None:
    assert set(RECIPE_FIELDS) == {field.name for field in dataclasses.fields(FinetuneConfig)}
    assert load(None, environment={}).recipe() == FinetuneConfig(base="demo")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_settings_are_valid_and_survive_being_saved(path: Path, tmp_path: Path) -> None:
    config = load(path, environment={})
    assert config.space
    assert config.baseline
    saved = tmp_path / "saved.yaml"
    saved.write_text(config.to_yaml(), encoding="utf-8")
    assert load(saved, environment={}) == config


def test_trial_0_is_the_published_run_whatever_the_other_trials_have() -> None:
    other = [
        "finetune.activation_dropout=0.1",
        "finetune.adam_beta2=0.98",
        "finetune.head_lr_mult=10",
        "finetune.feat_proj_dropout=0.2",
        "finetune.final_dropout=0.2",
        "finetune.weight_decay=0.1",
        "finetune.adam_beta1=0.8",
        "finetune.max_grad_norm=5",
        "finetune.ema_fraction=0.05",
        "finetune.freeze_feature_encoder=false",
        "finetune.speed_perturb=0.1",
        "finetune.noise_prob=1",
    ]
    config = load(CONFIGS[0].with_name("xlsr_300m.yaml"), other, environment={})
    recipe = config.recipe(config.baseline)
    assert (recipe.lr_peak, recipe.schedule, recipe.warmup_fraction) == (5e-5, "linear", 0.33)
    assert (recipe.adam_beta1, recipe.adam_beta2, recipe.weight_decay, recipe.head_lr_mult) == (0.9, 0.999, 0.0, 1.0)
    assert (recipe.max_grad_norm, recipe.ema_fraction) == (1.0, 0.0)
    assert (recipe.speed_perturb, recipe.noise_prob, recipe.freeze_feature_encoder) == (0.0, 0.0, True)
    assert (recipe.attention_dropout, recipe.hidden_dropout, recipe.layerdrop) == (0.1, 0.1, 0.1)
    assert (recipe.activation_dropout, recipe.feat_proj_dropout, recipe.final_dropout) == (0.0, 0.0, 0.0)


def test_a_sweep_may_compare_base_checkpoints_with_ranges_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(
        "model: {base: facebook/wav2vec2-xls-r-300m}\n"
        "space:\n"
        "  base: {choices: [facebook/wav2vec2-xls-r-300m, facebook/mms-1b-all]}\n"
        "  lr_peak:\n"
        "    - {low: 1.0e-4, high: 1.0e-3, log: true, when: {base: {is: facebook/mms-1b-all}}}\n"
        "    - {low: 2.0e-5, high: 2.0e-4, log: true}\n"
    )
    config = load(path, environment={})
    assert config.bases == ["facebook/wav2vec2-xls-r-300m", "facebook/mms-1b-all"]
    assert config.recipe(config.baseline).base == "facebook/wav2vec2-xls-r-300m"
    assert config.recipe({"base": "facebook/mms-1b-all"}).base == "facebook/mms-1b-all"
    assert load(None, ["model.base=demo"], environment={}).bases == ["demo"]


def test_folders_of_searched_bases_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    config = make_absolute(load(None, ["space.base={choices: [mine, some/hub-id]}"], {}), in_job=False)
    assert config.bases[1:] == [str(tmp_path / "mine"), "some/hub-id"]


def test_a_length_in_epochs_is_that_of_the_train_split_and_survives_being_saved(tmp_path: Path) -> None:
    config = load(None, ["finetune.length_epochs=20", "finetune.length_s=5"], environment={})
    assert config.recipe().length_s == 5, "nothing is known of the data yet"
    known = config.with_length(5_916.3)
    assert known.recipe().length_s == pytest.approx(118_326)
    assert known.recipe({"lr_peak": 1e-3}).length_s == known.recipe().length_s
    saved = tmp_path / "sweep.yaml"
    saved.write_text(known.to_yaml(), encoding="utf-8")
    assert load(saved, environment={}).with_length(5_916.3) == known
    assert load(None, environment={}).with_length(1.0).recipe().length_s == FinetuneConfig().length_s
    with pytest.raises(UserError, match="length_epochs"):
        load(None, ["finetune.length_epochs=0"], environment={})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_no_starting_point_is_a_wasted_trial(path: Path) -> None:
    config = load(path, environment={})
    for name, settings in config.starting_points.items():
        recipe = config.recipe(settings)
        updates = recipe.length_s / recipe.batch_s
        learning = updates * (1 - recipe.freeze_transformer_fraction)
        assert learning >= 900, f"{name} frees the transformer for {learning:.0f} updates only"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_ranges_that_are_split_differ(path: Path) -> None:
    for name, ranges in load(path, environment={}).space.items():
        alone = [one.model_dump(exclude={"when"}) for one in ranges]
        assert all(one not in alone[:at] for at, one in enumerate(alone)), f"{name} is split for nothing"


def test_what_is_set_counts_over_environment_over_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("storage: file\nmlflow: {uri: sqlite:///file.db}\nsearch: {trials: 5}\n")
    environment = {"HAUSA_ASR_STORAGE": "/env", "MLFLOW_TRACKING_URI": "http://env:5000"}
    config = load(path, ["storage=/set"], environment)
    assert (config.storage, config.mlflow.uri, config.search.trials) == ("/set", "http://env:5000", 5)
    assert load(path, [], {}).storage == "file"


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    config = load(None, ["baseline.lr_peak=5e-5", "space.lr_peak={choices: [1e-4, 3e-4]}"], {})
    assert config.baseline["lr_peak"] == 5e-5
    assert config.space["lr_peak"][0].choices == [1e-4, 3e-4]
    assert config.recipe(config.baseline).lr_peak == 5e-5


def test_on_and_off_may_stand_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("finetune: {compile: on, feature_cache: off}\n")
    assert (load(path, environment={}).recipe().compile, load(path, environment={}).recipe().feature_cache) == (
        "on",
        "off",
    )
    assert load(None, ["finetune.compile=off"], environment={}).recipe().compile == "off"
    assert check_setting("compile", False) == "off"
    with pytest.raises(UserError):
        load(None, ["finetune.feature_cache=on"], environment={})


def test_all_problems_are_named_at_once_with_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "finetune: {lr_pek: 3, batch_s: -1}\n"
        "serch: {trials: 3}\n"
        "baseline: {schedule: sinus}\n"
        "space:\n"
        "  mask_tme_prob: {low: 0, high: 1}\n"
        "  seed: {choices: [1, 2]}\n"
        "  hidden_dropout: {low: 0.2, high: 0.1}\n"
        "  unfreeze: {choices: [all], when: {freeze: {above: 0}}}\n"
    )
    with pytest.raises(UserError) as refused:
        load(path, environment={})
    message = str(refused.value)
    for words in (
        "did you mean lr_peak?",
        "batch_s",
        "greater than 0",
        "did you mean search?",
        "linear, cosine, tri_stage",
        "did you mean mask_time_prob?",
        "space.seed",
        "low (0.2) must be below high (0.1)",
        "'freeze'",
    ):
        assert words in message, words
    assert str(path) in message
    assert "8 settings are wrong" in message


@pytest.mark.parametrize(
    ("gpus", "workers", "fits"),
    [(0.5, "1", True), (1, "2", True), (0, "2", True), (2, "{min: 1, max: 4}", True), (0.5, "{min: 1, max: 1}", True),
     (0.5, "2", False), (0.25, "{min: 1, max: 4}", False)],
)  # fmt: skip
def test_workers_of_one_trial_do_not_share_a_gpu(gpus: float, workers: str, fits: bool) -> None:
    """NCCL refuses two ranks on one GPU, so every such trial would die."""
    changes = [f"resources.gpus_per_worker={gpus}", f"resources.workers_per_trial={workers}"]
    if fits:
        load(None, changes, {})
        return
    with pytest.raises(UserError) as refused:
        load(None, changes, {})
    for words in ("resources", "gpus_per_worker", "workers_per_trial", "NCCL", "A setting is wrong"):
        assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [1", "not YAML"), ("- 1\n- 2\n", "names and values"), (None, "no such settings file")],
)
def test_files_that_are_no_settings(text: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words):
        load(path, environment={})


def test_settings_of_older_versions_load_without_their_audit(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("pruning: {reduction: 3, audit_share: 0.05}\n")
    config = load(path, environment={})
    assert config.pruning.reduction == 3
    assert "audit_share" not in config.to_yaml()


@pytest.mark.parametrize("override", ["search.trials", "=3", "search.trials=[1"])
def test_set_without_name_or_value(override: str) -> None:
    with pytest.raises(UserError, match="--set"):
        load(None, [override], {})


@pytest.mark.parametrize(
    ("name", "value", "ok"),
    [("lr_peak", 0, False), ("lr_peak", 1e-3, True), ("mask_time_prob", 1.0, False), ("schedule", "cosine", True),
     ("freeze_transformer_fraction", 1.2, False), ("mask_time_length", 0, False), ("lr_peak", float("nan"), False)],
)  # fmt: skip
def test_limits(name: str, value: object, ok: bool) -> None:
    if ok:
        assert check_setting(name, value) == value
    else:
        with pytest.raises(ValueError, match=r"."):
            check_setting(name, value)


def test_paths_become_absolute_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    config = make_absolute(load(None, ["model.base=base", "data.path=audio"], {}), in_job=False)
    assert config.storage == str(tmp_path / "runs")
    assert config.mlflow.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert config.model.base == str(tmp_path / "base")
    assert config.data.path == str(tmp_path / "audio")
    hub = make_absolute(load(None, ["model.base=facebook/wav2vec2-xls-r-300m"], {}), in_job=False)
    assert hub.model.base == "facebook/wav2vec2-xls-r-300m"
    assert make_absolute(config, in_job=True) == config


def test_in_a_ray_job_relative_paths_are_refused_with_what_to_set() -> None:
    with pytest.raises(UserError) as refused:
        make_absolute(SweepConfig(), in_job=True)
    assert "HAUSA_ASR_STORAGE" in str(refused.value)
    assert "MLFLOW_TRACKING_URI" in str(refused.value)


def test_a_password_in_an_address_is_kept_out_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ada:pla%40nted@mlflow.example:5000/base")
    file = tmp_path / "a.yaml"
    file.write_text("mlflow: {uri: 'http://ada:planted@host'}\n")
    config = load(file)
    assert config.mlflow.uri == os.environ["MLFLOW_TRACKING_URI"] == "https://mlflow.example:5000/base"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("ada", "pla@nted")
    assert (
        load(file, environment={}).mlflow.uri == "http://host" and os.environ["MLFLOW_TRACKING_PASSWORD"] == "planted"
    )
    assert "planted" not in config.to_yaml()
    kept = load(None, ["data.path=hf://datasets/ada/speech@main", "data.corpus=hub"], environment={})
    assert kept.data.path == "hf://datasets/ada/speech@main", "a revision is no password"
    for override in (
        "storage=s3://key:planted@bucket/runs",
        "data={corpus: folder, path: 's3://key:planted@bucket'}",
        "space.base={choices: [demo, 's3://key:planted@bucket/base']}",
        "data.prepared='simplecache::s3://planted@bucket'",
    ):
        with pytest.raises(UserError, match="holds a user name or a password") as refused:
            load(None, [override], environment={})
        assert "planted" not in str(refused.value)
        assert override.partition("=")[0].partition(".")[0] in str(refused.value)


@pytest.mark.parametrize("in_job", [False, True])
def test_an_address_is_a_storage_wherever_it_is_read(in_job: bool) -> None:
    """It made a folder named `s3:` outside a Ray job."""
    options = ["mlflow.uri=http://mlflow:5000", "data.prepared=s3://bucket/data", "model.base=s3://bucket/base"]
    config = make_absolute(load(None, ["storage=s3://bucket/runs/", *options]), in_job=in_job)
    assert config.storage == "s3://bucket/runs"
    assert (config.data.prepared, config.model.base) == ("s3://bucket/data", "s3://bucket/base")
    assert make_absolute(load(None, ["storage=file:///data/runs", *options]), in_job=in_job).storage == "/data/runs"
