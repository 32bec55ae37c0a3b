"""Cross-entropy of the softmax of logits."""

from typing import TYPE_CHECKING, ClassVar, Literal

from leadline.parts.base import Spec
from leadline.parts.losses import LOSSES, Loss, Reduction

if TYPE_CHECKING:
    from torch import Tensor


@LOSSES.register
class CrossEntropy(Spec, Loss):
    """Cross-entropy of the softmax of logits, in nats, with the label smoothing of the recipe."""

    name: Literal["cross-entropy"] = "cross-entropy"

    takes_probabilities: ClassVar = True

    def compute(self, outputs: "Tensor", targets: "Tensor", reduction: Reduction, smoothing: float = 0.0) -> "Tensor":
        """Return PyTorch's cross-entropy."""
        import torch.nn.functional as F

        return F.cross_entropy(outputs, targets, label_smoothing=smoothing, reduction=reduction)
