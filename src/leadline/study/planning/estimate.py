"""How long a network will take on this machine, from what it calls and from the machine's calibration."""

from leadline.study.planning.calibration import predict
from leadline.study.planning.speeds import Speed
from leadline.study.planning.timing import Timing, Work
from leadline.study.planning.tracing import Amounts, Traced, evaluation_amounts, step_amounts

FACTOR = 1.5
"""Factor within which most estimates of a step are of its time: `python -m benchmarks.planning`."""

_CALLS_PER_SERIES = 8
_BYTES_PER_SERIES = 3  # of one step, compressed


def estimate(work: Work, traced: Traced, speed: Speed) -> Timing | None:
    """Return what one network will take; None: its operations, or those of its optimizer, cannot be counted.

    Snapshot probes are left out.
    """
    step, evaluation = step_amounts(work, traced), evaluation_amounts(work, traced)
    if step is None or evaluation is None:
        return None
    asked = work.trial.probes.flow
    series = 0 if asked is None else traced.tensors * len(asked.what)
    measured = Amounts({"calls": _CALLS_PER_SERIES * series, "values": 2 * traced.parameters if series else 0})
    return Timing(
        step=predict(speed.units, step),
        steps=0,
        evaluation=predict(speed.units, evaluation) / traced.evaluated,
        share=1.0,
        start=0.0,
        flow=predict(speed.units, measured),
        flow_bytes=_BYTES_PER_SERIES * series,
        day=speed.day,
    )
