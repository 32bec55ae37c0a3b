"""The store of studies, trials and measurements: one database shared by many processes."""

from leadline.store.ledger import Store
from leadline.store.schema import STATES, TrialState
from leadline.store.values import (
    AlteredTrial,
    Claim,
    HeldTrial,
    LeaseLost,
    StudyRecord,
    StudySummary,
    TrialRecord,
    verify_spec,
)
from leadline.store.worker_id import WorkerId

__all__ = [
    "STATES",
    "AlteredTrial",
    "Claim",
    "HeldTrial",
    "LeaseLost",
    "Store",
    "StudyRecord",
    "StudySummary",
    "TrialRecord",
    "TrialState",
    "WorkerId",
    "verify_spec",
]
