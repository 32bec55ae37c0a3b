"""Values of many steps, kept on the device in memory that is there beforehand, and copied in one piece."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from leadline.probes.table import KINDS, FlowTable


class Buffer:
    """Rows of values by step; a column for each series, found when it is first asked for.

    Holds capacity x series float32 values on the device; rows that no longer fit there go to the host.
    """

    def __init__(self, device: torch.device, capacity: int) -> None:
        self.device = device
        self.capacity = capacity
        self.columns: dict[tuple[str, str], int] = {}  # kind and name -> column
        self.memory = torch.full((capacity, 0), torch.nan, device=device)
        self.steps: list[int] = []  # of the rows in memory
        self.written: list[tuple[list[int], np.ndarray]] = []
        self._last_places: tuple[tuple[int, ...], Tensor] = ((), torch.empty(0, dtype=torch.int64, device=device))

    def column(self, kind: str, name: str) -> int:
        """Return the column of a series."""
        return self.columns.setdefault((kind, name), len(self.columns))

    def append(self, step: int, values: Mapping[int, Tensor]) -> None:
        """Add a row of values by column; all are scalars, of one type."""
        if self.memory.shape[1] < len(self.columns):
            self.flush()
            self.memory = torch.full((self.capacity, len(self.columns)), torch.nan, device=self.device)
        elif len(self.steps) == self.capacity:
            self.flush()
        self.steps.append(step)
        self.amend(values)

    def amend(self, values: Mapping[int, Tensor]) -> None:
        """Set values of the last row, if it is still in memory."""
        values = self._known(values)
        if self.steps and values:
            self.memory[len(self.steps) - 1, self._places(tuple(values))] = self._vector(values.values())

    def flush(self) -> None:
        """Copy all rows to the host and make place for more."""
        if self.steps:
            self.written.append((self.steps, self.memory[: len(self.steps)].cpu().numpy().copy()))
            self.steps = []
            self.memory.fill_(torch.nan)

    def restore(self, table: FlowTable) -> None:
        """Begin with the rows of a table."""
        columns = [self.column(kind, name) for kind, name in zip(table.kinds, table.names, strict=True)]
        rows = np.full((len(table.steps), len(self.columns)), np.nan, np.float32)
        rows[:, columns] = table.values
        self.written = [(table.steps.tolist(), rows)]
        self.memory = torch.full((self.capacity, len(self.columns)), torch.nan, device=self.device)

    def table(self, last: int | None, values: Mapping[int, Tensor], blocks: Sequence[str], seconds: float) -> FlowTable:
        """Return the rows, or the last of them, with `values` in the last row."""
        start = 0 if last is None else max(0, len(self.steps) - last)
        rows = self.memory[start : len(self.steps)].cpu().numpy().copy()
        pieces = [(self.steps[start:], rows)]
        for piece in reversed(self.written):
            if last is not None and sum(len(steps) for steps, _ in pieces) >= last:
                break
            pieces.insert(0, piece)
        steps = np.array([step for own, _ in pieces for step in own], dtype=np.int64)
        found = np.full((len(steps), len(self.columns)), np.nan, np.float32)
        done = 0
        for own, rows in pieces:
            found[done : done + len(own), : rows.shape[1]] = rows
            done += len(own)
        values = self._known(values)
        if len(steps) and values:
            found[-1, list(values)] = self._vector(values.values()).cpu().numpy()
        if last is not None:
            first = max(0, len(steps) - last)
            steps, found = steps[first:], found[first:]
        series = sorted(self.columns, key=lambda one: (KINDS.index(one[0]), self.columns[one]))
        return FlowTable(
            tuple(name for _, name in series),
            tuple(kind for kind, _ in series),
            steps,
            found[:, [self.columns[one] for one in series]],
            tuple(blocks),
            seconds,
        )

    def _known(self, values: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Leave out series that came up in a step that has not ended."""
        return {column: value for column, value in values.items() if column < self.memory.shape[1]}

    def _places(self, columns: tuple[int, ...]) -> Tensor:
        if self._last_places[0] != columns:
            self._last_places = (columns, torch.tensor(columns, dtype=torch.int64, device=self.device))
        return self._last_places[1]

    def _vector(self, values: Iterable[Tensor]) -> Tensor:
        vector = torch.stack([value.to(self.device) for value in values]).float()
        # NaN says that nothing was measured, and these values were
        return torch.nan_to_num(vector, nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
