"""What flow probes measured, as arrays: one row per measured step, one column per series; knows no torch."""

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leadline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

WEIGHT_GRADIENT = "weight_gradient_norm"  # Euclidean norm of the loss's gradient with respect to a weight
UPDATE = "update_ratio"  # norm of a weight's change in one step / norm of the weight before it
ACTIVATION_GRADIENT = "activation_gradient_norm"  # norm of the gradient with respect to a module's output, whole batch
MEAN = "activation_mean"
SECOND_MOMENT = "activation_second_moment"  # mean of squares
ZEROS = "activation_zeros"  # fraction of values that are exactly 0
DEAD = "dead_units"  # fraction of channels that were never other than 0 in the epoch so far
BRANCH = "branch_to_shortcut"  # norm of a residual block's branch / norm of its shortcut, as they are added
KINDS = (WEIGHT_GRADIENT, UPDATE, ACTIVATION_GRADIENT, MEAN, SECOND_MOMENT, ZEROS, DEAD, BRANCH)


@dataclass(frozen=True, eq=False)
class FlowTable:
    """Series of values by step.

    A value is NaN where nothing was measured; what was measured and is not a number is kept as infinity.
    Within a kind, series stand in the order of depth: weights as the model defines them, outputs as they are computed.
    """

    names: tuple[str, ...]  # of each series: a parameter's name or a module's; `name#2` is a module's second call
    kinds: tuple[str, ...]  # of each series: one of `KINDS`
    steps: np.ndarray  # int64 [rows]: optimizer steps done before each
    values: np.ndarray  # float32 [rows, series]
    blocks: tuple[str, ...] = ()  # names of the model's blocks, first to last
    seconds: float = 0.0  # that measuring took on the host

    def series(self, kind: str) -> tuple[tuple[str, ...], np.ndarray]:
        """Return the names and the values [rows, names] of one kind, in the order of depth."""
        chosen = [index for index, own in enumerate(self.kinds) if own == kind]
        return tuple(self.names[index] for index in chosen), self.values[:, chosen]

    def between(self, start: int, stop: int) -> "FlowTable":
        """Return the rows of the steps from `start` on and before `stop`."""
        rows = (self.steps >= start) & (self.steps < stop)
        return FlowTable(self.names, self.kinds, self.steps[rows], self.values[rows], self.blocks, self.seconds)

    def frame(self) -> "pd.DataFrame":
        """Return one row per measured value.

        Columns: `step`; `kind`; `layer`, the series' name; `depth`, its place from 1 on within its kind; `block`, the
        place from 1 on of the block that it is or lies in, or missing; `value`.
        """
        import pandas as pd

        seen: dict[str, int] = {}
        depth, block = [], []
        for kind, name in zip(self.kinds, self.names, strict=True):
            seen[kind] = seen.get(kind, 0) + 1
            depth.append(seen[kind])
            block.append(block_of(name, self.blocks))
        measured = ~np.isnan(self.values.T)
        column, row = np.nonzero(measured)
        return pd.DataFrame(
            {
                "step": self.steps[row],
                "kind": np.array(self.kinds, dtype=object)[column],
                "layer": np.array(self.names, dtype=object)[column],
                "depth": np.array(depth, dtype=np.int64)[column],
                "block": pd.array([block[index] for index in column], dtype="Int64"),
                "value": self.values.T[measured],
            }
        )

    def to_bytes(self) -> bytes:
        """Return the table as a compressed .npz file, which `from_bytes` and `numpy.load` read."""
        about = {"names": self.names, "kinds": self.kinds, "blocks": self.blocks, "seconds": self.seconds}
        file = io.BytesIO()
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        # a series changes little from step to step, so its bytes compress best side by side
        np.savez_compressed(file, about=text, steps=self.steps, series=np.ascontiguousarray(self.values.T))
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "FlowTable":
        """Read what `to_bytes` wrote.

        Raises:
            DataError: the bytes are damaged or something else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                table = cls(
                    tuple(map(str, about["names"])),
                    tuple(map(str, about["kinds"])),
                    arrays["steps"].astype(np.int64),
                    np.ascontiguousarray(arrays["series"].T, dtype=np.float32),
                    tuple(map(str, about["blocks"])),
                    float(about["seconds"]),
                )
        except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"cannot read {len(data)} bytes as a flow table ({reason}); measure again") from None
        if len(table.names) != len(table.kinds) or table.values.shape != (len(table.steps), len(table.names)):
            raise DataError(
                f"flow table: {len(table.names)} names, {len(table.kinds)} kinds and {len(table.steps)} steps do not"
                f" fit values of shape {table.values.shape}; measure again"
            )
        return table


def without_call(name: str) -> str:
    """Return a series' name without the number of its call: `cell#2` is `cell`."""
    return re.sub(r"#\d+$", "", name)


def block_of(name: str, blocks: Iterable[str]) -> int | None:
    """Return the place, from 1 on, of the block that a series is of or lies in."""
    own = without_call(name)
    return next((n for n, block in enumerate(blocks, 1) if own == block or own.startswith(f"{block}.")), None)
