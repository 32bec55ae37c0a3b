"""The part of the gradient that came straight down the shortcuts (He et al. 2016)."""

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
class DecompositionProbe(SnapshotProbe):
    """The part of the gradient that came straight down the shortcuts (He et al. 2016)."""

    name: Literal["decomposition"] = Field(default="decomposition", exclude=True)
    images: int = Field(default=64, ge=1, description="number of images that are measured")

    measures_loss: ClassVar[bool] = True
    heading: ClassVar[str] = "Decomposition"
    title: ClassVar[str] = "Share of the gradient through the shortcuts"
    columns: ClassVar[tuple[str, ...]] = ("number", "block", "quantity", "value")
    about: ClassVar[str] = (
        "The residual decomposition. In a residual network x_L = x_l + the sum of the branches from l on, so the"
        " gradient at the input of block l is dL/dx_l = dL/dx_L (1 + d/dx_l of that sum): one part comes straight"
        " down the shortcuts, whatever the weights are, the other through the branches (equations 5 and 7 of the"
        " comparative study; He et al. 2016, equations 4 and 5). Here x_L is the last block's output. Where"
        " something follows the addition, as the ReLU of the original order does, it is on both paths, so the direct"
        " part is masked at each block on its way down; projections, zero padding and factors on the shortcut act on"
        " it too, and a gate acts as a constant with its value at this input: the change of the gate itself counts"
        " with the branch. The share of a part is its inner product with the whole gradient over the whole's squared"
        " norm,"
        " its part of the whole in the whole's own direction: the two shares sum to 1, which norms do not, and one"
        " above 1 says that the other part works against it. A plain network has no direct part."
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
        """Return the frame of `decompose`."""
        from leadline.probes.snapshots.decomposition.measurement import decompose

        frame: pd.DataFrame = decompose(
            model, images, labels, seed=seed, training=batch_statistics, progress=progress
        ).frame()
        return frame

    def draw(self, rows: "pd.DataFrame") -> "Iterator[Figure]":
        """Yield its figures."""
        from leadline.probes.snapshots.decomposition.figures import draw

        return draw(rows)
