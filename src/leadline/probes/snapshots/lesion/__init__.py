"""The error without each block (Veit et al. 2016)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from leadline.probes.snapshots import END, PROBES, SnapshotProbe, Times

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from leadline.probes.blocks import Progress
    from leadline.reports.charts.chart import Figure


@PROBES.register
class LesionProbe(SnapshotProbe):
    """The error without each block (Veit et al. 2016)."""

    name: Literal["lesion"] = Field(default="lesion", exclude=True)
    at: Times = (END,)
    images: int = Field(default=256, ge=1, description="number of images that are measured")

    heading: ClassVar[str] = "Lesion"
    title: ClassVar[str] = "Error with one block deleted"
    columns: ClassVar[tuple[str, ...]] = ("error",)
    takes_batch_statistics: ClassVar[bool] = False
    about: ClassVar[str] = (
        "Lesions. A block is deleted from the trained network, without any training afterwards, and the error is"
        " measured again: of a residual block the branch is left out, so that its shortcut alone remains, projection"
        " or zero padding included where the shape changes; a plain block is replaced by the identity, where its"
        " input and output have one shape. Veit et al. (2016, sections 4.1 and 4.2) found that deleting almost any"
        " one block of a residual network hardly matters, that blocks which change the shape matter most, that any"
        " deletion ruins a plain network, and that the error grows smoothly as more blocks are deleted, or as blocks"
        " of one shape are swapped (measured by Kendall's tau between new and old order): as an ensemble of many"
        " paths would behave, and a single chain would not. In a recurrent network a block is one step, left out"
        " once though its weights serve other steps too. Batch normalisation keeps the statistics of the whole"
        " network."
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
        """Return the frame of `lesion`."""
        from leadline.probes.snapshots.lesion.measurement import lesion

        frame: pd.DataFrame = lesion(model, images, labels, progress=progress).frame()
        return frame

    def draw(self, rows: "pd.DataFrame") -> "Iterator[Figure]":
        """Yield its figures."""
        from leadline.probes.snapshots.lesion.figures import draw

        return draw(rows)
