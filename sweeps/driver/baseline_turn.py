"""When the baseline, which waits at its rungs as all trials do, is sent on to its end. Part of the agenda.

All others are measured by it, so it comes to its end wherever it stands. It waits for that until no new setting is
left, since a search that is interrupted has more of other trials; or until the wall clock leaves just enough for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.budget import baseline_exhausted, baseline_is_due
from sweeps.record.ledger import Ledger
from sweeps.record.trial import TrialRecord


class BaselineTurn:
    """Says when it is the baseline's turn.

    Args:
        config: the sweep's settings.
        ledger: its ledger.
        held: the trials that slots have, as the agenda keeps them.
        over: why no new trials are started; "" while some are.

    Attributes:
        way_is_made: a slot has left its trial to the baseline, and has not asked for an order since.
    """

    def __init__(self, config: SweepConfig, ledger: Ledger, held: Collection[str], over: Callable[[], str]) -> None:
        self._config, self._ledger, self._held, self._over = config, ledger, held, over
        self.way_is_made = False

    def if_due(self) -> TrialRecord | None:
        """The baseline, when the wall clock leaves just enough for it."""
        baseline = self._waiting()
        if baseline is None or not (self.way_is_made or self._is_due()):
            return None
        return baseline if self._is_payable() else None

    def at_last(self) -> TrialRecord | None:
        """The baseline, once no new setting is left to try."""
        baseline = self._waiting()
        return baseline if baseline is not None and self._over() and self._is_payable() else None

    def makes_way(self) -> bool:
        """Whether a slot must leave its trial to the baseline, which else would not come to its end in time.

        True for one slot: the trial that it leaves goes on later, if there is time.
        """
        if self.way_is_made or self.if_due() is None:
            return False
        self.way_is_made = True
        return True

    def _waiting(self) -> TrialRecord | None:
        """The baseline, if it has not come to its end and no slot has it. Where it broke, its turn is that of all."""
        baseline = self._ledger.state.baseline()
        if baseline is None or baseline.id in self._held or baseline.waits_for_workers:
            return None
        return baseline if baseline.is_open or baseline.can_go_on else None

    def _is_due(self) -> bool:
        return baseline_is_due(self._ledger.state, self._config, time.time())

    def _is_payable(self) -> bool:
        return not baseline_exhausted(self._ledger.state, self._config, time.time())
