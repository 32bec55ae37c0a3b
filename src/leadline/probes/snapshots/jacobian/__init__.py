"""Singular values of the map from images, or any depth, to the output."""

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
class JacobianProbe(SnapshotProbe):
    """Singular values of the map from images, or any depth, to the output."""

    name: Literal["jacobian"] = Field(default="jacobian", exclude=True)
    images: int = Field(default=3, ge=1, description="number of images that are measured")

    heading: ClassVar[str] = "Jacobian"
    title: ClassVar[str] = "Singular values of the Jacobian"
    columns: ClassVar[tuple[str, ...]] = ("kind", "map", "depth", "extreme", "value", "error")
    about: ClassVar[str] = (
        "Singular values of the Jacobian: by how much a small change of what enters a part of the network is"
        " stretched at most (the largest) and at least (the smallest) on its way to what leaves it. Gradients that"
        " come back through that part are stretched and shrunk by the same factors. Both near 1 at every depth is"
        " dynamical isometry (Saxe, McClelland & Ganguli 2014; Pennington, Schoenholz & Ganguli 2017): signals and"
        " gradients keep their size however deep the network is. By depth: a largest value that falls or"
        " grows exponentially with the number of blocks still to pass is a gradient that vanishes or explodes; a"
        " large ratio of largest to smallest means that most directions of the input are lost on the way. It is the"
        " map of one image, with batch normalisation in evaluation mode unless the figure says otherwise."
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
        """Return the frame of `jacobian`."""
        from leadline.probes.snapshots.jacobian.measurement import jacobian

        frame: pd.DataFrame = jacobian(
            model, images, seed=seed, batch_statistics=batch_statistics, progress=progress
        ).frame()
        return frame

    def draw(self, rows: "pd.DataFrame") -> "Iterator[Figure]":
        """Yield its figures."""
        from leadline.probes.snapshots.jacobian.figures import draw

        return draw(rows)
