"""The loss along a random direction in weight space."""

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
class LandscapeProbe(SnapshotProbe):
    """The loss along a random direction in weight space."""

    name: Literal["landscape"] = Field(default="landscape", exclude=True)
    images: int = Field(default=128, ge=1, description="number of images that are measured")

    measures_loss: ClassVar[bool] = True
    heading: ClassVar[str] = "Landscape"
    title: ClassVar[str] = "The loss around the network"
    columns: ClassVar[tuple[str, ...]] = ("kind", "x", "y", "loss")
    about: ClassVar[str] = (
        "The loss and the error of the network when all of its weights are moved. Along random directions each"
        " filter moves by a step as long as the filter itself, so that 1 means as much for networks whose weights"
        " differ in size; biases and normalisation stay (Li et al. 2018, section 4). Along the line between two"
        " trained networks 0 is the first and 1 the second (Goodfellow, Vinyals & Saxe 2015). Compare the width and"
        " the smoothness of the valley, on one scale for all networks: Li et al. see plain networks turn chaotic with"
        " depth"
        " where residual ones stay smooth. One or two random directions cover little of a space with millions of"
        " dimensions: a valley"
        " that looks convex may have directions that fall, and a hill on the line between two networks does not say"
        " that every way between them climbs (Garipov et al. 2018). Batch normalisation is in evaluation mode unless"
        " the figure says otherwise; between two networks its running statistics move along with the weights."
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
        """Return the frame of `along`."""
        from leadline.probes.snapshots.landscape.measurement import along

        frame: pd.DataFrame = along(
            model, images, labels, seed=seed, batch_statistics=batch_statistics, progress=progress
        ).frame()
        return frame

    def draw(self, rows: "pd.DataFrame") -> "Iterator[Figure]":
        """Yield its figures."""
        from leadline.probes.snapshots.landscape.figures import draw

        return draw(rows)
