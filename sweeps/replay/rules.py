"""The rules that a replay compares, by name: ours, and the stock rules of other tools.

In: what the user asks for, such as `ours:reduction=3`. Out: rules, each new before its first evaluation. Called by the
replay's command and `compare`. A rule is one small class (`stock`, `ours`) and one line of `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hausa_asr.errors import UserError
from hausa_asr.settings.sweep import PruningSettings
from sweeps.replay.ours import Ours, Plain
from sweeps.replay.policy import Options, PruningRule
from sweeps.replay.stock import Full, Median, OneEpoch, StockAsha

RULES: dict[str, Callable[[Options], PruningRule]] = {
    "full": lambda options: Full(),
    "asha_wer_2": lambda options: StockAsha("wer", options.marks(reduction=2), 2),
    "asha_wer_4": lambda options: StockAsha("wer", options.marks(reduction=4), 4),
    "asha_wer_grace": lambda options: StockAsha("wer", options.marks(first_rung=0.5), options.pruning.reduction),
    "asha_loss": lambda options: StockAsha("loss", options.marks(), options.pruning.reduction),
    "median": lambda options: Median(options.pruning.first_rung * options.length_s),
    "one_epoch": lambda options: OneEpoch(options.epoch_s),
    "plain": Plain,
    "ours": Ours,
}
ALWAYS = ("full", "asha_loss", "ours")
"""Compared in every replay; times are relative to those of the first two."""
CHANGEABLE = ("rank_by", "reduction", "first_rung", "finish_share")


@dataclass(frozen=True)
class NamedRule:
    """A rule with its options; `label` is how the user wrote it, such as `ours:reduction=2`."""

    label: str
    name: str
    options: Options

    def new_rule(self) -> PruningRule:
        """Make the rule, before its first evaluation."""
        return RULES[self.name](self.options)

    @property
    def peer(self) -> NamedRule:
        """Loss-only stock ASHA on the same rungs with the same reduction factor."""
        return NamedRule("asha_loss" + self.label.removeprefix(self.name), "asha_loss", self.options)


def named_rule(label: str, options: Options) -> NamedRule:
    """Read a rule as the user writes it: `NAME`, or `NAME:option=value,...` with what differs from `options`.

    Raises:
        UserError: the rule or the option does not exist, or the value is not allowed.
    """
    name, _, rest = label.partition(":")
    if name not in RULES:
        raise UserError(f"There is no rule {name!r}.", where=f"--rule {label}", fix=f"Name one of {', '.join(RULES)}.")
    changed = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    try:
        if unknown := changed.keys() - set(CHANGEABLE):
            raise ValueError(", ".join(sorted(unknown)))
        pruning = PruningSettings.model_validate({**options.pruning.model_dump(), **changed})
    except ValueError:  # pydantic's is one
        raise UserError(
            f"A rule cannot have the options {rest!r}.",
            where=f"--rule {label}",
            fix="Write for example --rule ours:rank_by=loss,reduction=2,first_rung=0.2.",
        ) from None
    return NamedRule(label, name, replace(options, pruning=pruning))


@dataclass(frozen=True)
class Selection:
    """The rules of a comparison.

    Attributes:
        rules: those to run, the peer of each among them.
        shown: the labels of those in the table and the picture.
    """

    rules: tuple[NamedRule, ...]
    shown: tuple[str, ...]


def select(labels: Sequence[str], options: Options) -> Selection:
    """Select the rules that the user asks for, those that are always compared, and their peers, each once.

    Raises:
        UserError: as `named_rule`.
    """
    asked = [named_rule(label, options) for label in (*ALWAYS, *labels)]
    by_label = {one.label: one for rule in asked for one in (rule, rule.peer)}
    order = dict.fromkeys([*labels, *ALWAYS, *(rule.peer.label for rule in asked)])
    shown = tuple(label for label in order if label in (*ALWAYS, *labels))
    return Selection(tuple(by_label[label] for label in order), shown)
