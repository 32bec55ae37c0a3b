"""Probes that take a snapshot: the kind, its registry, and custom probes; a file or package for each other.

A member is a `SnapshotProbe`: its fields say when it is taken and of how many images, `measure` what it measures and
`draw` how that is drawn. It imports PyTorch and Altair inside these two, so that specifications and reports load
neither. See `leadline.probes.snapshots.lesion` for one whose measurement is long and has a module of its own.
"""

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, GetCoreSchemaHandler, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_core import CoreSchema

from leadline.errors import SpecError, unknown
from leadline.parts.base import Spec, explain
from leadline.parts.reference import Reference
from leadline.parts.registry import Registry

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from leadline.probes.blocks import Progress
    from leadline.reports.charts.chart import Figure

PROBES: "Registry[SnapshotProbe]" = Registry("probe", __name__)
"""Every probe that takes a snapshot, by name."""

START: Literal["start"] = "start"
END: Literal["end"] = "end"
Time = Literal["start", "end"] | int
Times = Annotated[
    tuple[Time, ...],
    Field(
        strict=False,
        min_length=1,
        description="epochs after which the probe runs; start: before the first step; end: after the last epoch",
    ),
]


class SnapshotProbe(Spec, ABC):
    """A measurement of a network as a whole at some moments of training, and how it is drawn."""

    name: str = Field(exclude=True)  # the key under which a specification has it
    at: Times = (START, END)
    images: int = Field(ge=1, description="maximum number of validation images to measure on")

    takes_batch_statistics: ClassVar[bool] = True
    """Whether `measure` can let batch normalisation use the batch's own mean and variance."""
    measures_loss: ClassVar[bool] = False
    """Whether `measure` computes a loss, which is the cross-entropy with the labels."""
    heading: ClassVar[str] = ""
    """Heading of the probe in the report."""
    title: ClassVar[str] = ""
    """Title of the first figure."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Columns of the frame that `draw` needs."""
    about: ClassVar[str] = ""
    """Paragraph for the report: what the probe shows, and its source."""

    @abstractmethod
    def measure(
        self,
        model: "nn.Module",
        images: "Tensor",
        labels: "Tensor",
        seed: int = 0,
        batch_statistics: bool = False,
        progress: "Progress | None" = None,
    ) -> "pd.DataFrame":
        """Measure a network.

        Args:
            model: any module, which is restored exactly; see `leadline.probes.state.measurement_mode`.
            images: (images, ...).
            labels: (images,).
            seed: random seed of the probe, which uses no global generator.
            batch_statistics: batch normalisation uses the batch's own mean and variance, if the probe supports this.
            progress: called with steps done and in all.

        Raises:
            LeadlineError: the probe cannot measure this network or these images.
        """

    @abstractmethod
    def draw(self, rows: "pd.DataFrame") -> "Iterator[Figure]":
        """Yield figures of what was measured.

        Args:
            rows: frames of `measure`, stacked over trials and epochs, as `prepare_rows` of
                `leadline.reports.charts.probe_curves` returns them.
        """

    def describe(self) -> str:
        """Return a paragraph on what it shows and where it comes from, for the report."""
        return self.about

    @field_validator("at", mode="before")
    @classmethod
    def _known_times(cls, value: object) -> object:
        if isinstance(value, str | int | float):
            value = [value]
        if isinstance(value, list | tuple):
            for time in value:
                number = isinstance(time, int) and not isinstance(time, bool) and time >= 1
                if time not in (START, END) and not number:
                    raise ValueError(
                        f"{time!r} is not a time of training; expected start, end or an epoch number of at least 1"
                    )
                if value.count(time) > 1:
                    raise ValueError(f"{list(value)} names {time} twice")
        return value

    @field_validator("at")
    @classmethod
    def _in_order(cls, value: tuple[Time, ...]) -> tuple[Time, ...]:
        # the order that they are written in means nothing, and so must not change a hash
        return tuple(sorted(value, key=lambda time: (time != START, time == END, str(time).rjust(20))))

    def epochs(self, last: int) -> frozenset[int]:
        """Return the numbers of epochs after which it is taken, of `last` in all; 0 is before the first step.

        Example:
            >>> sorted(find_probe("cka").epochs(last=20))
            [0, 20]
        """
        return frozenset(time if isinstance(time, int) else (last if time == END else 0) for time in self.at)


class _AnyProbe:
    """Makes a field take any member of the kind."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return PROBES.schema(handler)


AnyProbe = Annotated[SnapshotProbe, _AnyProbe]
"""The type of a field that takes any probe that takes a snapshot."""


@PROBES.register
class CustomProbe(Reference, SnapshotProbe):
    """A custom function, called with (model, images, labels) and `arguments`, and perhaps its chart.

    It returns a frame, or a dictionary of columns, with one row per value. It is given a copy of the network in
    evaluation mode, images and labels; global generators are seeded for it and put back. Its attribute `chart`, where
    it has one, is called with the rows of all trials, after columns arm, base, seed and epoch, and returns an Altair
    chart::

        def sharpness(model, images, labels, radius=0.1):
            return {"radius": [radius], "loss": [...]}

        sharpness.chart = lambda frame: alt.Chart(frame).mark_point().encode(x="epoch:O", y="loss:Q", color="base:N")
    """

    name: str = Field(exclude=True, description="by which a study asks for it; by default the module")
    images: int = Field(default=128, ge=1, description="number of images that are measured")

    @model_validator(mode="before")
    @classmethod
    def _named_by_module(cls, value: object) -> object:
        return {"name": value.get("module"), **value} if isinstance(value, Mapping) else value

    def measure(
        self,
        model: "nn.Module",
        images: "Tensor",
        labels: "Tensor",
        seed: int = 0,
        batch_statistics: bool = False,
        progress: "Progress | None" = None,
    ) -> "pd.DataFrame":
        """Return what the function measures of a copy of the network.

        Raises:
            SpecError: it cannot be imported, calling it fails, or it returns no columns of values.
        """
        import copy

        from leadline.probes.state import PROBE, measurement_mode
        from leadline.seeds import seeded, stream

        copied = copy.deepcopy(getattr(model, "_orig_mod", model))
        copied.zero_grad()
        with measurement_mode(copied, seed, batch_statistics) as lent, seeded(stream(seed, PROBE, self.module)):
            result = self.call(lent, images.clone(), labels.clone())
        return _to_frame(self.module, result)

    def draw(self, rows: "pd.DataFrame") -> "Iterator[Figure]":
        """Yield the function's chart, or a figure that says why there is none and holds the values alone."""
        import altair as alt

        from leadline.reports.charts.chart import Figure, Panel

        rows = rows.assign(base=rows["base"].astype("str"))
        panels: tuple[Panel, ...] = ()
        caption = self.describe() or f"What {self.module} measured."
        try:
            chart = getattr(self.resolve(), "chart", None)
            if chart is None:
                caption += " It has no attribute `chart`, so its values are in the table alone."
            else:
                drawn = chart(rows)
                if not isinstance(drawn, alt.Chart | alt.LayerChart):
                    raise TypeError(f"expected an altair.Chart or LayerChart, got a {type(drawn).__name__}")
                drawn.to_dict()
                panels = (Panel("", drawn),)
        except Exception as error:  # whatever somebody's code may raise: the rest of the report stands
            panels = ()
            caption += f" Its chart could not be drawn: {type(error).__name__}: {' '.join(str(error).split())}"
        yield Figure(re.sub(r"[^A-Za-z0-9]+", "-", self.name), self.name, caption, rows, caption, panels)

    def describe(self) -> str:
        """Return the function's own docstring, as one paragraph."""
        try:
            text = inspect.getdoc(self.resolve()) or ""
        except SpecError as error:  # the report of a run whose code is gone shows what was measured all the same
            return f"{error}."
        return " ".join(text.split())


def find_probe(name: str | Callable[..., Any]) -> SnapshotProbe:
    """Return a probe with its defaults, from its name, a reference to the user's own, or that function itself.

    Raises:
        SpecError: no probe has the name, or the reference is none.

    Example:
        >>> find_probe("lesion").at
        ('end',)
    """
    known = PROBES.members()
    if isinstance(name, str) and ":" not in name and name not in known:
        raise SpecError(unknown("probe", name, known))
    adapter: TypeAdapter[SnapshotProbe] = TypeAdapter(AnyProbe)
    try:
        return adapter.validate_python(name)
    except ValidationError as error:
        raise SpecError(*(f"probe {problem}" for problem in explain(error, name, adapter.json_schema))) from None


def _to_frame(module: str, result: object) -> "pd.DataFrame":
    """Return what a custom function measured as a frame.

    Raises:
        SpecError: it is neither a frame nor a dictionary of columns, or a column has the name of one of the trial's.
    """
    import pandas as pd

    if isinstance(result, Mapping):
        try:
            result = pd.DataFrame(dict(result))
        except ValueError as error:
            raise SpecError(f"{module}: {error}; give columns of one length, such as {{'loss': [0.5]}}") from None
    if not isinstance(result, pd.DataFrame):
        raise SpecError(f"{module} returned a {type(result).__name__}; expected a pandas frame or a dict of columns")
    taken = {"arm", "base", "level", "seed", "epoch"} & set(result.columns)
    if taken:
        raise SpecError(f"{module}: column {min(taken)!r} is reserved for the trial; rename the column")
    return result.rename(columns=str).reset_index(drop=True)
