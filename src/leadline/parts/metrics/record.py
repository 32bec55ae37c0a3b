"""One measured value of a trial: what training yields, the store keeps and reports read."""

from typing import NamedTuple


class Record(NamedTuple):
    """A value measured while a trial runs.

    `split` says on what it was measured (`train`, `validation`, `final-test`, `time`, `probe`, ...), `name` what it is
    (`loss`, `accuracy` as a fraction, `error` in per cent, `seconds`, ...). NaN and infinities are values like others.
    """

    step: int  # optimizer steps done
    epoch: int  # epochs done: 1 at the end of the first
    split: str
    name: str
    value: float
