"""Measurements in the compact form stored in the database: numbered series and packed predictions."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, insert, select

from leadline.parts.metrics.record import Record
from leadline.store.connect import build_insert
from leadline.store.schema import measurements, predictions, records, series

if TYPE_CHECKING:
    import numpy as np


MOST_IMAGES = 20_000_000
"""Test images whose classes are unpacked at most; a damaged value could name any number."""


def number_series(connection: Connection, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Insert missing series (split, name), and return the ids of all series."""
    connection.execute(
        build_insert(connection, series).on_conflict_do_nothing(index_elements=[series.c.split, series.c.name]),
        # Sorted, so that two workers cannot deadlock.
        [{"split": split, "name": name} for split, name in sorted(wanted)],
    )
    rows = connection.execute(select(series.c.split, series.c.name, series.c.id))
    return {(row.split, row.name): row.id for row in rows}


def put_records(
    connection: Connection, trial_id: int, new: Sequence[Record], numbers: Mapping[tuple[str, str], int]
) -> None:
    """Insert records of a trial, replacing existing values."""
    if not new:
        return
    statement = build_insert(connection, records)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=list(records.primary_key), set_={"value": statement.excluded.value}
        ),
        [
            {
                "trial_id": trial_id,
                "epoch": record.epoch,
                "step": record.step,
                "series_id": numbers[record.split, record.name],
                "value": record.value,
            }
            for record in new
        ],
    )


def put_measurements(connection: Connection, trial_id: int, epoch: int, new: Mapping[str, bytes]) -> None:
    """Insert probe measurements of an epoch, by name, replacing existing ones."""
    if new:
        where = measurements.c.trial_id == trial_id, measurements.c.epoch == epoch, measurements.c.name.in_(new)
        connection.execute(delete(measurements).where(*where))
        rows = [{"trial_id": trial_id, "epoch": epoch, "name": name, "content": new[name]} for name in sorted(new)]
        connection.execute(insert(measurements), rows)


def put_predictions(connection: Connection, trial_id: int, packed: tuple[bytes, bytes]) -> None:
    """Insert the packed predictions and labels of a trial, replacing existing ones."""
    connection.execute(delete(predictions).where(predictions.c.trial_id == trial_id))
    connection.execute(insert(predictions).values(trial_id=trial_id, predicted=packed[0], labels=packed[1]))


def pack_pair(predicted: "np.ndarray[Any, Any]", labels: "np.ndarray[Any, Any]") -> tuple[bytes, bytes]:
    """Compress two integer arrays of classes, [n] each, as little-endian int16.

    Raises:
        ValueError: their shapes differ, or they are not one-dimensional arrays of integers within int16.
    """
    if predicted.shape != labels.shape:
        raise ValueError(f"predictions {predicted.shape} and labels {labels.shape} differ in shape")
    return _pack(predicted), _pack(labels)


def _pack(classes: "np.ndarray[Any, Any]") -> bytes:
    limits = -(2**15), 2**15 - 1
    inside = classes.size == 0 or limits[0] <= classes.min() <= classes.max() <= limits[1]
    if classes.ndim != 1 or classes.dtype.kind not in "iu" or not inside:
        raise ValueError(f"expected a 1-D array of integers that fit int16, got {classes.dtype} {classes.shape}")
    return zlib.compress(classes.astype("<i2").tobytes())


def unpack_classes(blob: bytes) -> "np.ndarray[Any, np.dtype[np.int16]]":
    """Return the classes, int16 [n], from their packed form.

    Raises:
        ValueError: it is damaged, or of more than `MOST_IMAGES` images.
    """
    import numpy as np

    unpacking = zlib.decompressobj()
    content = unpacking.decompress(blob, 2 * MOST_IMAGES)
    if not unpacking.eof:
        raise ValueError(f"packed classes end early, or are of more than {MOST_IMAGES:,} images")
    return np.frombuffer(content, dtype="<i2").astype(np.int16)
