"""A measured value of a trial, as yielded by training, kept in the store and read by reports."""

from typing import NamedTuple


class Record(NamedTuple):
    """A value measured during a trial.

    `split` is what it was measured on (`train`, `validation`, `final-test`, `time`, `probe`, ...), `name` is what it is
    (`loss`, `accuracy` as a fraction, `error` in per cent, `seconds`, ...). Values can be NaN or infinite.
    """

    step: int  # optimizer steps done
    epoch: int  # epochs done: 1 at the end of the first
    split: str
    name: str
    value: float
