"""Curvature: the spectrum of the loss's second derivatives."""

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
class HessianProbe(SnapshotProbe):
    """Curvature: the spectrum of the loss's second derivatives."""

    name: Literal["hessian"] = Field(default="hessian", exclude=True)
    images: int = Field(default=32, ge=1, description="number of images that are measured")

    measures_loss: ClassVar[bool] = True
    heading: ClassVar[str] = "Hessian"
    title: ClassVar[str] = "The spectrum of the Hessian"
    columns: ClassVar[tuple[str, ...]] = ("quantity", "index", "x", "value", "error")
    about: ClassVar[str] = (
        "Eigenvalues of the Hessian, the second derivatives of the loss with respect to all weights that are"
        " trained: how steeply the loss bends, and in how many directions. The largest come from Lanczos iteration;"
        " the trace is summed over the space that it reaches and estimated outside it by random vectors, in the manner"
        " of Hutch++ (Meyer, Musco, Musco & Woodruff 2021), with its standard error; the density comes from"
        " stochastic Lanczos quadrature (Ghorbani, Krishnan & Xiao 2019; Papyan 2018); all take Hessian-vector"
        " products and never form the matrix. Plain"
        " gradient descent diverges where the largest eigenvalue stays above 2 / learning rate; most"
        " eigenvalues lie near 0, and a few, often as many as there are classes, stand far out (Sagun et al. 2017);"
        " negative ones say that the network is not at a minimum. Ghorbani et al. see eigenvalues far outside the"
        " bulk where batch normalisation is missing. Rescaling weights changes eigenvalues even where the function"
        " stays the same (Dinh et al. 2017), so compare only networks of the same kind. Batch normalisation is in"
        " evaluation mode"
        " unless the figure says otherwise."
    )

    @property
    def revision(self) -> int:
        """2: the trace is exact in the space of the largest eigenvalues."""
        return 2

    def measure(
        self,
        model: "nn.Module",
        images: "Tensor",
        labels: "Tensor",
        seed: int = 0,
        batch_statistics: bool = False,
        progress: "Progress | None" = None,
    ) -> "pd.DataFrame":
        """Return the frame of `hessian`."""
        from leadline.probes.snapshots.hessian.measurement import hessian

        frame: pd.DataFrame = hessian(
            model, images, labels, seed=seed, batch_statistics=batch_statistics, progress=progress
        ).frame()
        return frame

    def draw(self, rows: "pd.DataFrame") -> "Iterator[Figure]":
        """Yield its figures."""
        from leadline.probes.snapshots.hessian.figures import draw

        return draw(rows)
