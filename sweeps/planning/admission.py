"""Refuse a sweep that cannot end well, and write the text of `python sweeps/run.py --plan`.

In: the settings, the slot plan and the prediction. Out: a `UserError` with every reason and a change that would fit, or
the text. Called before a sweep starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hausa_asr.errors import UserError
from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.budget import finalist_length_s, hours_word
from sweeps.planning.estimate import Prediction, figures, fitting, limits
from sweeps.planning.expected_length import least_s
from sweeps.planning.finalists import GROWTH_SHARES, finalist_runs
from sweeps.planning.groups import range_in_words, sizes_in_words
from sweeps.planning.memory import in_float32
from sweeps.planning.memory import in_words as memory_in_words
from sweeps.planning.memory import too_little as too_little_memory
from sweeps.planning.slots import SlotPlan, stock_would_hang
from sweeps.pruning.rungs import rungs_s
from sweeps.wording import amount, duration, many, size


def check(config: SweepConfig, prediction: Prediction) -> None:
    """Refuse a sweep that cannot end well.

    Raises:
        UserError: with every reason, and a change for each that would fit.
    """
    reasons = refusals(config, prediction)
    if not reasons:
        return
    fixes = "; ".join(one.fix for one in reasons)
    raise UserError(
        "\n".join(one.reason for one in reasons),
        where=f"a sweep of {config.search.trials} trials, {prediction.slots} side by side",
        fix=f"{fixes[:1].upper()}{fixes[1:]}.",
    )


class Refusal(NamedTuple):
    """Why a sweep cannot end well, a sentence, and what to change, in lower case without a full stop."""

    reason: str
    fix: str


def refusals(config: SweepConfig, prediction: Prediction) -> list[Refusal]:
    """List why a sweep cannot end well, each reason with a change that would fit; empty if it can."""
    return [*_too_little_disk(config, prediction), *_too_small_a_budget(config, prediction)]


def _too_little_disk(config: SweepConfig, prediction: Prediction) -> Iterator[Refusal]:
    least, bound = prediction.disk_least, config.max_checkpoint_gb
    if least is None:
        return
    gb = math.ceil(least / 1e7) / 100
    takes = f"The checkpoints that cannot be dropped take {size(least)} or more"
    if bound is not None and least > bound * 1e9:
        yield Refusal(f"{takes}, but max_checkpoint_gb is {bound:g}.", f"set max_checkpoint_gb to {gb:g} or more")
    if least > prediction.disk_free:
        yield Refusal(
            f"{takes}, but the disk of the storage has {size(prediction.disk_free)}.",
            f"choose a storage with {gb:g} GB or more",
        )


def _too_small_a_budget(config: SweepConfig, prediction: Prediction) -> Iterator[Refusal]:
    speed, trials = prediction.speed, config.search.trials
    if speed is None or speed.guessed:  # a guess may be wrong by a factor of ten: it warns and refuses nothing
        return
    for limit in limits(config, figures(config, prediction.slots, speed, trials, least_s)):
        if limit.taken <= limit.limit * speed.slack:
            continue
        enough = fitting(config, prediction.slots, speed, limit, least_s)
        without = config.model_copy(update={"finalists": config.finalists.model_copy(update={"k": 0})})
        enough_without = fitting(without, prediction.slots, speed, limit, least_s)
        if enough > 1:
            instead = f"search.trials to {enough}"
        elif enough_without > 1:
            instead = "finalists.k to 0" + (
                f" and search.trials to {enough_without}" if enough_without < trials else ""
            )
        else:
            instead = "finetune.length_s to less"
        taken, allowed = limit.say(limit.taken), limit.say(limit.limit)
        yield Refusal(
            f"The sweep takes {taken} at the least, but {limit.setting} allows {allowed}.",
            f"set {limit.setting} to {math.ceil(limit.taken * 100) / 100:g}, or {instead}",
        )


def describe(config: SweepConfig, nodes: Sequence[Mapping[str, float]], plan: SlotPlan, prediction: Prediction) -> str:
    """Write the plan as text; the last lines say why the sweep would be refused.

    Args:
        config: the sweep's settings.
        nodes: the nodes that the plan is made for.
        plan, prediction: the slots, and what the sweep takes on them.
    """
    lines = [("cluster", _cluster(nodes)), ("slots", _slots(config, plan))]
    if stock_would_hang(config.resources, nodes, config.search.trials):
        cpus = int(sum(node.get("CPU", 0) for node in nodes))
        drivers = min(config.search.trials, cpus)
        lines.append(
            (
                "",
                f"Ray Tune's documented pattern would wait for ever here: {many(drivers, 'driver')} of 1 CPU leave "
                f"{cpus - drivers} of {cpus} CPUs for workers",
            )
        )
    lines += [*_trials(config, prediction.epochs), *_figures(config, prediction)]
    lines += [("disk", _disk(config, prediction)), ("memory", memory_in_words(config))]
    budget = [f"{setting} {limit:g}" for setting, limit in config.budget.model_dump(exclude_none=True).items()]
    lines.append(("budget", ", ".join(budget) or "none is set"))
    memory = too_little_memory(config, plan.slots, nodes, prediction.features)
    warnings = (*prediction.warnings, *memory, *in_float32(config, plan.gpus))
    lines += [("warning", warning) for warning in warnings]
    for reason, fix in refusals(config, prediction):
        lines += [("refused", reason), ("", f"{fix[:1].upper()}{fix[1:]}.")]
    return "\n".join(f"{name:<10} {text}".rstrip() for name, text in lines)


def in_a_line(config: SweepConfig, prediction: Prediction) -> str:
    """What a sweep is expected to take, in a line; "" where nothing is known of its speed."""
    speed, low, mean, high = prediction.speed, prediction.low, prediction.expected, prediction.high
    if speed is None or low is None or mean is None or high is None:
        return ""
    cost = "" if mean.money is None else f", {amount(mean.money)} in money"
    return (
        f"expected to take {duration(mean.wall_s)} ({duration(low.wall_s)} to {duration(high.wall_s)}), "
        f"{amount(mean.hours)} {hours_word(config.resources)}{cost}, at {amount(speed.audio_s_per_s)} s of audio per "
        f"second and trial: {speed.source}"
    )


def _cluster(nodes: Sequence[Mapping[str, float]]) -> str:
    cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return f"{many(len(nodes), 'node')}, {many(cpus, 'CPU')}, {many(gpus, 'GPU') if gpus else 'no GPU'}"


def _slots(config: SweepConfig, plan: SlotPlan) -> str:
    wanted = config.resources
    takes = many(wanted.cpus_per_worker, "CPU")
    if wanted.gpus_per_worker:
        takes += f" and {many(wanted.gpus_per_worker, 'GPU')}"
    if wanted.has_range:
        trials = f"{plan.slots} trials side by side, {sizes_in_words(plan.workers)}, of {takes} each"
        if plan.slots == 1:
            trials = f"1 trial at a time, with {many(plan.workers[0], 'worker')} of {takes} each"
        rule = f"a trial takes {range_in_words(wanted)}, as many as there is room for when its group starts"
        return f"{trials}; {rule}; what follows is for {many(plan.workers[0], 'worker')} a trial"
    workers = wanted.most_workers
    each = " each" if workers > 1 else ""
    trials = f"{plan.slots} trials side by side, each" if plan.slots > 1 else "1 trial at a time,"
    return f"{trials} with {many(workers, 'worker')} of {takes}{each}"


def _trials(config: SweepConfig, epochs: float | None) -> list[tuple[str, str]]:
    length_s, stops, runs = config.recipe().length_s, rungs_s(config), finalist_runs(config)
    text = f"{many(config.search.trials, 'trial')}, the baseline among them, of up to {length_s:,.0f} s of audio each"
    text += f", {epochs:.3g} times the train split" if epochs else ""
    if stops:
        text += f"; 1 in {config.pruning.reduction} goes on at {' and '.join(f'{at:,.0f}' for at in stops)} s"
    seeds, shares = config.finalists.seeds, GROWTH_SHARES if config.finalists.data_growth else ()
    best = runs // seeds - 1 - len(shares)
    finals = f"{many(runs, 'run')} of {finalist_length_s(config):,.0f} s: the best {best} and the baseline"
    finals += f", the winner on {' and '.join(f'{100 * one:.0f}' for one in shares)} % of train" if shares else ""
    finals += f", each on {many(seeds, 'fresh seed')}"
    return [("trials", text), ("finalists", finals if runs else "none")]


def _figures(config: SweepConfig, prediction: Prediction) -> list[tuple[str, str]]:
    speed, low, mean, high = prediction.speed, prediction.low, prediction.expected, prediction.high
    if speed is None or low is None or mean is None or high is None:
        return [("speed", "not known")]
    columns = low, mean, high
    rows = [
        ("", ("at least", "expected", "at most")),
        ("time", tuple(duration(one.wall_s) for one in columns)),
        (hours_word(config.resources), tuple(amount(one.hours) for one in columns)),
    ]
    if mean.money is not None:
        rows.append(("cost", tuple(amount(one.money or 0.0) for one in columns)))
    rate = amount(speed.audio_s_per_s)
    return [
        ("speed", f"{rate} s of audio per second and trial: {speed.source}"),
        *((name, "".join(f"{cell:>12}" for cell in cells)) for name, cells in rows),
    ]


def _disk(config: SweepConfig, prediction: Prediction) -> str:
    free = f"{size(prediction.disk_free)} free"
    if prediction.disk_expected is None or prediction.disk_least is None:
        return f"not known; {free}"
    bound = f", max_checkpoint_gb {config.max_checkpoint_gb:g}" if config.max_checkpoint_gb is not None else ""
    most, least = size(prediction.disk_expected), size(prediction.disk_least)
    features = f"; cached features {size(prediction.features)}" if prediction.features else ""
    written = f"; about {size(prediction.written)} written in all" if prediction.written else ""
    return f"checkpoints about {most} at their most, {least} at the least{written}{features}; {free}{bound}"
