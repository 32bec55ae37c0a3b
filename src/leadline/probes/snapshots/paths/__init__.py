"""The gradient by the length of its path (Veit et al. 2016)."""

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
class PathsProbe(SnapshotProbe):
    """The gradient by the length of its path (Veit et al. 2016)."""

    name: Literal["paths"] = Field(default="paths", exclude=True)
    images: int = Field(default=16, ge=1, description="number of images that are measured")

    measures_loss: ClassVar[bool] = True
    heading: ClassVar[str] = "Paths"
    title: ClassVar[str] = "Gradient by path length"
    columns: ClassVar[tuple[str, ...]] = ("length", "norm", "norm_low", "norm_high", "share", "sum_norm", "sum_share")
    about: ClassVar[str] = (
        "Gradient by path length. A network of n residual blocks is a sum over 2^n paths, each through the branches"
        " of some blocks and the shortcuts of the others; C(n, k) of them have length k. A gradient that is let back"
        " through k branches drawn at random, and the shortcut everywhere else, shows what one path of that length"
        " carries; times their number, what all of them carry if they agreed in direction. Veit et al. (2016,"
        " section 4.3) found the gradient of one path to fall exponentially with its length, so that paths far"
        " shorter than the network give nearly all of it. Paths partly cancel, so beside that bound stands the exact"
        " sum of all paths of a length, whose shares of the gradient sum to 1; a share may be negative where paths"
        " of that length oppose the rest. What stands before the branching, after the addition or between blocks is"
        " on every path; the gate of a gated shortcut counts with the branch."
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
        """Return the frame of `gradient_by_path_length`."""
        from leadline.probes.snapshots.paths.measurement import gradient_by_path_length

        frame: pd.DataFrame = gradient_by_path_length(
            model, images, labels, seed=seed, training=batch_statistics, progress=progress
        ).frame()
        return frame

    def draw(self, rows: "pd.DataFrame") -> "Iterator[Figure]":
        """Yield its figures."""
        from leadline.probes.snapshots.paths.figures import draw

        return draw(rows)
