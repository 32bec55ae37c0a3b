"""How alike the gradients of nearby images are (Balduzzi et al. 2017)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from leadline.probes.snapshots import PROBES, SnapshotProbe

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from leadline.probes.blocks import Progress
    from leadline.reports.charts.chart import Figure


@PROBES.register
class ShatteredProbe(SnapshotProbe):
    """How alike the gradients of nearby images are (Balduzzi et al. 2017)."""

    name: Literal["shattered"] = Field(default="shattered", exclude=True)
    images: int = Field(default=4, ge=2, multiple_of=2, description="number of images that are measured")

    heading: ClassVar[str] = "Shattered"
    title: ClassVar[str] = "Similarity of the gradients of two inputs"
    columns: ClassVar[tuple[str, ...]] = ("place", "depth", "blocks_to_output", "distance", "correlation")
    about: ClassVar[str] = (
        "Shattered gradients (Balduzzi et al. 2017): one output of the network is differentiated at evenly spaced"
        " points on the line between two images, with respect to what enters each block there. The figure shows how"
        " alike the gradients of two different points are, as their correlation, against the number of blocks that"
        " the gradient has come back through. Near 1, similar inputs require similar changes; near 0, gradients"
        " are as unlike as white noise, and a step that serves one input says nothing about its neighbour. Theory at"
        " initialisation, for rectifiers and unlike inputs: 1/2^L through L layers of a plain network, (3/4)^L of a"
        " residual one without normalisation, and about 1/sqrt(L) with batch normalisation. Real grid points are"
        " more alike than the theory takes them to be, so curves start higher; compare the rates of decay."
        " Batch normalisation is in evaluation mode unless the figure says otherwise."
    )

    def measure(
        self,
        model: "nn.Module",
        images: "Tensor",
        labels: "Tensor",
        seed: int = 0,
        batch_statistics: bool = False,
        progress: "Progress | None" = None,
    ) -> "pd.DataFrame":
        """Return the frame of `shattered`."""
        from leadline.probes.snapshots.shattered.measurement import shattered

        frame: pd.DataFrame = shattered(
            model, images, seed=seed, batch_statistics=batch_statistics, progress=progress
        ).frame()
        return frame

    def draw(self, rows: "pd.DataFrame") -> "Iterator[Figure]":
        """Yield its figures."""
        from leadline.probes.snapshots.shattered.figures import draw

        return draw(rows)
