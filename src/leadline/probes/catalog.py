"""The probes of a network as a whole by name, each a function of a model and a batch; and one taken while training."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from leadline.errors import LeadlineError
from leadline.probes import cka, decomposition, hessian, jacobian, landscape, lesion, noise, paths, shattered
from leadline.probes.blocks import Progress
from leadline.probes.measured import Measurement

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Named:
    """A probe that can be asked for by name."""

    function: Callable[..., Any]
    about: str  # a paragraph: what it shows, and where it comes from
    labels: bool = True  # whether it takes labels after the images
    seeded: bool = True  # whether it draws
    batch_statistics: str | None = "batch_statistics"  # the argument that asks for them; None: it has none

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int = 0,
        batch_statistics: bool = False,
        progress: Progress | None = None,
    ) -> "pd.DataFrame":
        """Measure and return the result's frame.

        Args:
            model: any module, which is left as it was.
            images: (images, ...).
            labels: (images,).
            seed: of what the probe draws.
            batch_statistics: where the probe can, batch normalisation uses the batch's own mean and variance.
            progress: called with steps done and in all.

        Raises:
            LeadlineError: the probe cannot measure this network, or not with these images.
        """
        settings: dict[str, Any] = {"progress": progress}
        if self.seeded:
            settings["seed"] = seed
        if self.batch_statistics is not None:
            settings[self.batch_statistics] = batch_statistics
        given = (images, labels) if self.labels else (images,)
        frame: pd.DataFrame = self.function(model, *given, **settings).frame()
        return frame


PROBES: Mapping[str, Named] = {
    "cka": Named(cka.cka, cka.ABOUT, labels=False),
    "decomposition": Named(decomposition.decompose, decomposition.ABOUT, batch_statistics="training"),
    "hessian": Named(hessian.hessian, hessian.ABOUT),
    "jacobian": Named(jacobian.jacobian, jacobian.ABOUT, labels=False),
    "landscape": Named(landscape.along, landscape.ABOUT),
    "lesion": Named(lesion.lesion, lesion.ABOUT, seeded=False, batch_statistics=None),
    "noise": Named(noise.gradient_noise, noise.ABOUT),
    "paths": Named(paths.gradient_by_path_length, paths.ABOUT, batch_statistics="training"),
    "shattered": Named(shattered.shattered, shattered.ABOUT, labels=False),
}


def normalises_batches(model: nn.Module) -> bool:
    """Whether a model has batch normalisation, whose running statistics say nothing before the first step."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def take(name: str, model: nn.Module, images: Tensor, labels: Tensor, *, seed: int, untrained: bool) -> Measurement:
    """Take one of `PROBES` while a network trains; what goes wrong is the measurement's reason, and fails no trial.

    Args:
        name: the probe.
        model: left as it was, to the bit.
        images: (images, ...).
        labels: (images,).
        seed: of what the probe draws.
        untrained: no step was made yet, so batch normalisation uses the batch's own statistics where the probe can.
    """
    import pandas as pd

    probe = PROBES[name]
    own = untrained and probe.batch_statistics is not None and normalises_batches(model)
    frame, reason, started = pd.DataFrame(), "", time.perf_counter()
    try:
        frame = probe.run(model, images, labels, seed=seed, batch_statistics=own)
    except Exception as error:  # a module of the user's own may fail in any way, and training goes on all the same
        text = " ".join(str(error).split())
        reason = text if isinstance(error, LeadlineError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
    return Measurement(frame, len(images), time.perf_counter() - started, own, reason)
