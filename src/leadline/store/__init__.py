"""Where studies live: what was asked, who runs what, what was measured. One database, many processes."""

from leadline.store.ledger import Store
from leadline.store.owner import Owner
from leadline.store.schema import STATES, TrialState
from leadline.store.values import Claim, LeaseLost, StudyRecord, StudySummary, TrialRecord

__all__ = [
    "STATES",
    "Claim",
    "LeaseLost",
    "Owner",
    "Store",
    "StudyRecord",
    "StudySummary",
    "TrialRecord",
    "TrialState",
]
