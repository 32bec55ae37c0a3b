"""Probes by name, run on a stored trial: its last checkpoint, and images of its own test data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from leadline.data import batches
from leadline.errors import SpecError, unknown
from leadline.export import from_trial
from leadline.probes import cka, decomposition, hessian, jacobian, landscape, lesion, noise, paths, shattered
from leadline.store import Store

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Named:
    """A probe that can be asked for by name."""

    run: Callable[..., Any]  # (model, images, labels, seed=, progress=) -> a result with .frame()
    about: str


def _without_labels(probe: Callable[..., Any]) -> Callable[..., Any]:
    def run(model: nn.Module, images: Tensor, labels: Tensor, **settings: Any) -> Any:
        return probe(model, images, **settings)

    return run


def _unseeded(probe: Callable[..., Any]) -> Callable[..., Any]:
    def run(model: nn.Module, images: Tensor, labels: Tensor, seed: int, **settings: Any) -> Any:
        return probe(model, images, labels, **settings)

    return run


PROBES: Mapping[str, Named] = {
    "cka": Named(_without_labels(cka.cka), cka.ABOUT),
    "decomposition": Named(decomposition.decompose, decomposition.ABOUT),
    "hessian": Named(hessian.hessian, hessian.ABOUT),
    "jacobian": Named(_without_labels(jacobian.jacobian), jacobian.ABOUT),
    "landscape": Named(landscape.along, landscape.ABOUT),
    "lesion": Named(_unseeded(lesion.lesion), lesion.ABOUT),
    "noise": Named(noise.gradient_noise, noise.ABOUT),
    "paths": Named(paths.gradient_by_path_length, paths.ABOUT),
    "shattered": Named(_without_labels(shattered.shattered), shattered.ABOUT),
}


def probe_trial(
    store: Store,
    prefix: str,
    name: str,
    images: int = 128,
    data_dir: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> "pd.DataFrame":
    """Run a probe on a stored trial's network and the first of its test images.

    Args:
        store: where the trial is.
        prefix: the trial's hash, or the beginning of it.
        name: one of `PROBES`.
        images: how many test images the probe sees, at most.
        data_dir: folder of the data sets.
        seed: of what the probe draws.
        progress: called with (done, all).

    Raises:
        SpecError: the probe's name is unknown.
        StoreError: there is no such trial, or it has no checkpoint.
        LeadlineError: the probe cannot measure this network.
    """
    if name not in PROBES:
        raise SpecError(unknown("probe", name, PROBES))
    loaded = from_trial(store, prefix, data_dir)
    assert loaded.trial is not None
    x, y = _first(batches.load(loaded.trial.data, data_dir), images)
    result = PROBES[name].run(loaded.model, x, y, seed=seed, progress=progress)
    frame: pd.DataFrame = result.frame()
    return frame


def _first(data: batches.Data, count: int) -> tuple[Float[Tensor, "batch c h w"], Int64[Tensor, " batch"]]:
    images, labels = next(iter(data.evaluation_batches("test", count)))
    return images.to(memory_format=torch.contiguous_format), labels
