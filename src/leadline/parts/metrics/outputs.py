"""A trained network's outputs for test images as the store keeps them: probabilities in half precision, compressed.

Up to `ALL_CLASSES` classes every probability is kept, above that those of the five most probable classes and of the
true one; the rest is spread evenly over the other classes when they are read. That is 2 bytes, or up to 24, for each
image before compression: at most 200 kB of MNIST or CIFAR-10, 1.2 MB of ImageNet.
"""

import io
from typing import Any

from leadline.parts.metrics.base import Outputs

OUTPUTS = "outputs"
"""The name under which the store keeps them."""
ALL_CLASSES = 20
"""The largest number of classes of which every probability is kept."""
KEPT = 5
"""The number of most probable classes whose probabilities are kept where there are more."""


def bytes_kept(classes: int) -> int:
    """Return the bytes that are kept of one image's probabilities, before compression.

    Example:
        >>> bytes_kept(10), bytes_kept(1000)
        (20, 24)
    """
    return 2 * classes if classes <= ALL_CLASSES else 4 * (KEPT + 1)


def pack_outputs(outputs: Outputs) -> bytes:
    """Return outputs as bytes: of a classification, probabilities alone; of other tasks, predictions and targets."""
    import numpy as np

    content = io.BytesIO()
    if outputs.probabilities is None:
        np.savez_compressed(content, predicted=outputs.predicted, targets=outputs.labels)
        return content.getvalue()
    probabilities = outputs.probabilities
    classes = probabilities.shape[1]
    if classes <= ALL_CLASSES:
        np.savez_compressed(content, probabilities=probabilities.astype(np.float16))
        return content.getvalue()
    first = np.argsort(-probabilities, axis=1, kind="stable")[:, :KEPT]
    kept = np.concatenate([first, outputs.labels[:, None]], 1)
    np.savez_compressed(
        content,
        kept=kept.astype(np.uint16),
        values=np.take_along_axis(probabilities, kept.astype(np.int64), 1).astype(np.float16),
        classes=np.array(classes),
    )
    return content.getvalue()


def unpack_outputs(packed: bytes, pair: "tuple[Any, Any] | None" = None) -> Outputs:
    """Return outputs from their bytes.

    Args:
        packed: from `pack_outputs`.
        pair: predicted and true classes, where probabilities alone were packed.
    """
    import numpy as np

    with np.load(io.BytesIO(packed), allow_pickle=False) as content:
        if "targets" in content:
            return Outputs(content["targets"], content["predicted"])
        if pair is None:
            raise ValueError("probabilities without their labels")
        predicted, labels = pair
        if "probabilities" in content:
            return Outputs(labels, predicted, content["probabilities"].astype(np.float32))
        kept, values, classes = content["kept"].astype(np.int64), content["values"], int(content["classes"])
        found = np.full((len(kept), classes), np.nan, dtype=np.float32)
        np.put_along_axis(found, kept, values.astype(np.float32), 1)
        unknown = np.isnan(found)
        left = np.clip(1 - np.nansum(found, 1, keepdims=True), 0, None) / np.maximum(unknown.sum(1, keepdims=True), 1)
        return Outputs(labels, predicted, np.where(unknown, left, found).astype(np.float32))
