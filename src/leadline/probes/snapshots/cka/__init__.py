"""How alike layers represent images: centred kernel alignment (Kornblith et al. 2019)."""

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
class CKAProbe(SnapshotProbe):
    """How alike layers represent images: centred kernel alignment (Kornblith et al. 2019)."""

    name: Literal["cka"] = Field(default="cka", exclude=True)
    images: int = Field(default=128, ge=4, description="number of images that are measured")

    heading: ClassVar[str] = "CKA"
    title: ClassVar[str] = "Similarity of the representations of two layers"
    columns: ClassVar[tuple[str, ...]] = ("row", "column", "row_depth", "column_depth", "cka")
    about: ClassVar[str] = (
        "Centred kernel alignment (Kornblith et al. 2019) of every pair of layers: 1 where two layers place the"
        " images alike up to rotation and scale, 0 where knowing one says nothing of the other. It is estimated"
        " without bias from minibatches (Nguyen, Raghu & Kornblith 2021, with the unbiased HSIC of Song et al."
        " 2012), so a value may fall a little below 0. Within one network: a bright square along the"
        " diagonal is a run of layers that change little, which Nguyen et al. find in networks that are larger than"
        " their data ask for; a residual network changes slowly all along, a plain one that has lost its signal"
        " shows a dark edge where it was lost. Between two networks: a bright diagonal means that layers at"
        " corresponding depths represent the images similarly. A few outlying images can dominate the value (Davari"
        " et al. 2023)."
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
        """Return the frame of `cka`."""
        from leadline.probes.snapshots.cka.measurement import cka

        frame: pd.DataFrame = cka(
            model, images, seed=seed, batch_statistics=batch_statistics, progress=progress
        ).frame()
        return frame

    def draw(self, rows: "pd.DataFrame") -> "Iterator[Figure]":
        """Yield its figures."""
        from leadline.probes.snapshots.cka.figures import draw

        return draw(rows)
