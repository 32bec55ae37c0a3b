"""What may be said of a study while it runs: no verdict before its seeds are in, unless its rules allow looks."""

import time
from dataclasses import dataclass

from leadline.analysis.verdict import contrasts_table, headline
from leadline.live.snapshot import VerdictNow
from leadline.reports.stored import read_findings
from leadline.store.following import Followed, Follower
from leadline.store.schema import SETTLED
from leadline.study.expand import ExpandedStudy
from leadline.text import plural

REST = 10.0
"""How much longer than an analysis took the next one of a study that is still running waits."""

SEARCH = VerdictNow("pending", ("These trials search for hyperparameters, so they have no verdict.",))


@dataclass
class VerdictReader:
    """Says what may be said of one study, and analyses it again only when trials have ended since."""

    store: Follower
    _key: object = None
    _found: VerdictNow = SEARCH
    _due: float = 0.0  # not earlier, by the monotonic clock

    def read(self, followed: Followed, study: ExpandedStudy) -> VerdictNow:
        """Return the verdict, the interim analysis, or why there is none yet."""
        if study.resolved.search is not None:
            return SEARCH
        states = [one.state for one in followed.progress]
        unfinished = sum(state not in SETTLED for state in states)
        if study.decide is None and unfinished:
            return _pending(unfinished, len(states))
        key = followed.record, tuple((one.state, one.seconds) for one in followed.progress if one.state in SETTLED)
        if key != self._key and (not unfinished or time.monotonic() >= self._due):
            started = time.monotonic()
            findings = read_findings(self.store, followed.record.name)
            final = not unfinished and (study.decide is None or bool(findings.rounds and findings.rounds[-1].looks))
            table = contrasts_table(findings)
            kind = "final" if final else "interim"
            self._found = VerdictNow(kind, headline(findings), table if table.rows else None)
            self._key, self._due = key, time.monotonic() + REST * (time.monotonic() - started)
        return self._found


def _pending(unfinished: int, total: int) -> VerdictNow:
    count = plural(unfinished, "trial")
    return VerdictNow(
        "pending",
        (
            f"No verdict yet: it comes when all {plural(total, 'trial')} have ended; waiting for {count}.",
            "The number of seeds is fixed beforehand. A verdict that is looked at while they come in, and acted on when"
            " it pleases, is wrong more often than it says. A study that decides while seeds are added may be looked at"
            " at any time.",
        ),
    )
