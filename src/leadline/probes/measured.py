"""What a probe of the network as a whole gave, as it is stored: a table, or why there is none; knows no torch."""

import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leadline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Measurement:
    """A probe's result at one moment of training."""

    frame: "pd.DataFrame"  # the probe's own; without rows and columns where it could not measure
    images: int  # that it saw
    seconds: float  # that it took on the host
    batch_statistics: bool = False  # whether batch normalisation used the batch's own mean and variance
    reason: str = ""  # why it could not measure, in one line

    def to_bytes(self) -> bytes:
        """Return the measurement as a compressed .npz file, which `from_bytes` and `numpy.load` read.

        Columns of text are numbers of the texts in `about`.
        """
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        texts: dict[str, list[str]] = {}
        for number, column in enumerate(self.frame.columns):
            values = self.frame[column].to_numpy()
            if values.dtype.kind not in "biuf":
                texts[column], values = _numbered([str(value) for value in values])
            arrays[f"column{number}"] = values
        about = {
            "columns": list(self.frame.columns),
            "texts": texts,
            "images": self.images,
            "seconds": self.seconds,
            "batch_statistics": self.batch_statistics,
            "reason": self.reason,
        }
        file = io.BytesIO()
        np.savez_compressed(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Measurement":
        """Read what `to_bytes` wrote.

        Raises:
            DataError: the bytes are damaged or something else.
        """
        import pandas as pd

        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                columns = {str(name): arrays[f"column{number}"] for number, name in enumerate(about["columns"])}
            for name, texts in about["texts"].items():
                columns[name] = np.array(texts, dtype=object)[columns[name]]
            return cls(
                pd.DataFrame(columns),
                int(about["images"]),
                float(about["seconds"]),
                bool(about["batch_statistics"]),
                str(about["reason"]),
            )
        except (
            *(ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError),
            *(OSError, EOFError, zipfile.BadZipFile, zlib.error),
        ) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"cannot read {len(data)} bytes as a probe's measurement ({reason}); measure again"
            ) from None


def _numbered(values: list[str]) -> tuple[list[str], "np.ndarray[Any, np.dtype[np.int32]]"]:
    known: dict[str, int] = {}
    numbers = [known.setdefault(value, len(known)) for value in values]
    return list(known), np.array(numbers, dtype=np.int32)
