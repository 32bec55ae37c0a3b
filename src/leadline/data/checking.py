"""Check a data set: read every file and count its images; no torch."""

from pathlib import Path

import numpy as np

from leadline.data.arrays import Arrays
from leadline.data.datasets import DataSpec
from leadline.data.files import compute_sha256, default_data_dir
from leadline.data.published import PublishedDataSpec


def check(spec: DataSpec, data_dir: Path | None = None) -> list[str]:
    """Read every file of a data set, and return a line about each file and each part of the data.

    Args:
        spec: any data set.
        data_dir: folder of the files; None: the default folder.

    Raises:
        DataError: a file is missing or invalid.
    """
    folder = data_dir or default_data_dir()
    found = spec.read(folder, download=False)
    lines = _describe_files(spec, folder) if isinstance(spec, PublishedDataSpec) else []
    known = spec.metadata(folder)
    shape = "x".join(map(str, known.shape))
    for name in ("train", "validation", "test"):
        part = getattr(found, name)
        if part is None:
            continue
        labels = part[1] if isinstance(found, Arrays) else part.labels
        counts = np.bincount(labels, minlength=known.classes)
        sizes = f"{known.classes} classes of {counts.min():,} to {counts.max():,}"
        lines.append(f"{spec.display_name} {name}: {len(labels):,} images of {shape}, {sizes}")
    return [*lines, *found.notes]


def _describe_files(spec: PublishedDataSpec, folder: Path) -> list[str]:
    published = {item.name: item.sha256 for item in spec.downloads}
    lines = []
    for path in spec.files(folder):
        if path.name not in published:
            note = "no checksum is published for this form"
        elif compute_sha256(path) == published[path.name]:
            note = "as published"
        else:
            note = "well-formed, but not identical to the published file: repacked, or with different pixels"
        lines.append(f"{path}: {path.stat().st_size:,} bytes, {note}")
    return lines
