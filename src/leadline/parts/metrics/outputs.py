"""Storage format of a trained network's outputs for test images: compressed probabilities in half precision.

Up to `ALL_CLASSES` classes, all probabilities are stored; for more, those of the five most probable classes and of the
true class, and the remainder is distributed evenly over the other classes when they are read. Before compression, this
takes 2 bytes per class, or 24 bytes, for each image: at most 200 kB for MNIST or CIFAR-10, 1.2 MB for ImageNet.
"""

import io
from typing import Any

from leadline.parts.metrics.base import Outputs

OUTPUTS = "outputs"
"""Name of the outputs in the store."""
ALL_CLASSES = 20
"""Maximum number of classes for which all probabilities are stored."""
KEPT = 5
"""Number of most probable classes whose probabilities are stored if there are more."""


def bytes_kept(classes: int) -> int:
    """Return the bytes of one image's stored probabilities, before compression.

    Example:
        >>> bytes_kept(10), bytes_kept(1000)
        (20, 24)
    """
    return 2 * classes if classes <= ALL_CLASSES else 4 * (KEPT + 1)


def pack_outputs(outputs: Outputs) -> bytes:
    """Return outputs as bytes: only probabilities for classification, predictions and targets for other tasks."""
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
        pair: predicted and true classes, if only probabilities were packed.
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
