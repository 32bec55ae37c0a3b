"""One probe taken while a network trains: what goes wrong in it is stored as the reason, and fails no trial."""

import time

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from leadline.errors import LeadlineError
from leadline.probes.measured import Measurement
from leadline.probes.snapshots import SnapshotProbe


def has_batch_normalisation(model: nn.Module) -> bool:
    """Return whether a model has batch normalisation, whose running statistics say nothing while it is untrained."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def run_probe(
    probe: SnapshotProbe, model: nn.Module, images: Tensor, labels: Tensor, *, seed: int, untrained: bool
) -> Measurement:
    """Take a probe while a network trains; where it fails, the measurement says why.

    Args:
        probe: what to measure.
        model: left as it was, to the bit.
        images: (images, ...).
        labels: (images,).
        seed: random seed of the probe.
        untrained: no step was made yet and the weights are not from a file, so batch normalisation uses the batch's own
            statistics where the probe can.
    """
    import pandas as pd

    own = untrained and probe.takes_batch_statistics and has_batch_normalisation(model)
    frame, reason, started = pd.DataFrame(), "", time.perf_counter()
    try:
        frame = probe.measure(model, images, labels, seed, own)
    except Exception as error:  # a custom module may fail in any way, and training goes on all the same
        text = " ".join(str(error).split())
        reason = text if isinstance(error, LeadlineError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
    return Measurement(frame, len(images), time.perf_counter() - started, own, reason)
