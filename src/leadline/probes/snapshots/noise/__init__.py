"""Signal and noise of minibatches' gradients, layer by layer (McCandlish et al. 2018)."""

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
class NoiseProbe(SnapshotProbe):
    """Signal and noise of minibatches' gradients, layer by layer (McCandlish et al. 2018)."""

    name: Literal["noise"] = Field(default="noise", exclude=True)
    images: int = Field(default=128, ge=64, description="number of validation images, measured in batches of 32")

    measures_loss: ClassVar[bool] = True
    heading: ClassVar[str] = "Noise"
    title: ClassVar[str] = "Signal and noise of the gradient by layer"
    columns: ClassVar[tuple[str, ...]] = ("layer", "depth", "quantity", "value")
    about: ClassVar[str] = (
        "Gradient noise: gradients of minibatches scatter around the gradient of all images. The signal-to-noise"
        " ratio of a layer is the length of that gradient over the root mean square length of the scatter at the"
        " batch size measured: above 1, a step mostly follows the true gradient; far below 1, it mostly follows the"
        " noise of these images. The simple noise scale (McCandlish et al. 2018) is the batch size, in images, at"
        " which signal and scatter have equal length: well below it, doubling the batch size halves the number of"
        " steps needed; well above it, larger batches bring little. It grows while training goes on, as the signal"
        " shrinks. Both"
        " are estimated without bias from a number of batches; where the scatter drowns the signal, the ratio is"
        " given as 0 and the scale as infinite, which means that more batches would be needed to see it. Batch"
        " normalisation is in evaluation mode unless the figure says otherwise."
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
        """Return the frame of `gradient_noise`."""
        from leadline.probes.snapshots.noise.measurement import gradient_noise

        frame: pd.DataFrame = gradient_noise(
            model, images, labels, seed=seed, batch_statistics=batch_statistics, progress=progress
        ).frame()
        return frame

    def draw(self, rows: "pd.DataFrame") -> "Iterator[Figure]":
        """Yield its figures."""
        from leadline.probes.snapshots.noise.figures import draw

        return draw(rows)
