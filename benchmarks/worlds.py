"""The worlds in which complete learning curves are recorded: which speech, which model, which space, how long.

A default that wins on one table of curves may lose on the next, so there are several, unlike each other. Each is a
sweep's settings with some of them changed, and the name of its speech, which `speech` makes or reads. Called by
`record_curves` and `pack_curves`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "sweeps/configs/demo.yaml"


@dataclass(frozen=True)
class World:
    """One table of recorded curves.

    Attributes:
        about: what it is, in words.
        speech: `demo`, `noisy`, `few` or `yoruba`.
        config: the settings whose space the recipes are drawn from.
        changes: of these settings, as `--set` takes them.
        count: how many settings.
        seeded: how many of them are trained on three seeds.
        base: the base checkpoint, by name; `big` is a folder that `record_curves --big` names.
    """

    about: str
    speech: str
    config: Path = DEMO
    changes: tuple[str, ...] = ()
    count: int = 40
    seeded: int = 0
    base: str = "demo"


def _length(length_s: float) -> tuple[str, ...]:
    return (f"finetune.length_s={length_s}",)


WORLDS = {
    "demo": World("the demo as it is: 35 minutes, seen about twice", "demo", count=120, seeded=10),
    "demo_long": World("the demo's speech, seen nine times", "demo", changes=_length(18_600), count=80, seeded=5),
    "yoruba": World("one man's read Yoruba, 99 minutes, seen five times", "yoruba", changes=_length(30_000), count=80),
    "noisy": World(
        "15 noisy minutes at changed speeds, seen thirty times; other voices in dev",
        "noisy",
        changes=_length(27_000),
        count=48,
    ),
    "few": World(
        "5 noisy minutes at changed speeds, seen thirty times; other voices in dev",
        "few",
        changes=_length(9_000),
        count=80,
    ),
    "free_convolutions": World(
        "the demo's speech, seen four times; the convolutions learn, the batch size is searched",
        "demo",
        HERE / "worlds/free_convolutions.yaml",
        count=44,
    ),
    "big": World(
        "the demo's speech, seen four times, by a model twice as large",
        "demo",
        changes=_length(9_000),
        count=44,
        base="big",
    ),
}

SHORTER = {"half": 2.0, "quarter": 4.0, "eighth": 8.0}
"""Complete schedules of a share of the length, to compare what they foretell with what a truncated curve does."""
