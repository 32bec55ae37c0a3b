"""What is measured inside a network while it trains, and when."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from leadline.errors import unknown
from leadline.parts.base import Spec
from leadline.parts.reference import refer
from leadline.probes.snapshots import PROBES, AnyProbe, CustomProbe, SnapshotProbe

FlowQuantity = Literal["gradients", "updates", "activations", "activation-gradients"]

LONGEST_NAME = 64
"""Characters of a name under which the store keeps what a probe measured."""

TAKEN = ("flow", "pretraining", "outputs", "predictions", "probabilities")
"""Names under which the store keeps something else, or may."""


class FlowSpec(Spec):
    """Gradient, activation and update flow, layer by layer, while the network trains; see `leadline.probes.flow`."""

    every: int = Field(default=1, ge=1, description="number of training steps between measurements")
    what: Annotated[tuple[FlowQuantity, ...], Field(strict=False, min_length=1)] = Field(
        default=(
            "gradients",
            "updates",
            "activations",
            "activation-gradients",
        ),
        description="which quantities are measured",
    )
    layers: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        default=("*",), description="patterns of module names; * alone: all blocks, and the modules beside them"
    )
    images: int = Field(default=16, ge=1, description="number of images per batch whose activations are measured")


class ProbeSpec(Spec):
    """What is measured inside a network while it trains: `flow` at its steps, other probes at some epochs.

    A name, or a list of names, asks for each with its defaults: `[flow, lesion]`; a mapping says how: `{lesion: {at:
    [end], images: 64}}`. A custom probe stands in a list as `{module: package.module:function, at: [end]}`,
    and in a mapping under a name: `{sharpness: {module: package.module:function}}`.
    """

    model_config = ConfigDict(extra="allow")

    flow: FlowSpec | None = Field(
        default=None, description="gradient, activation and update flow at every few steps; None: not measured"
    )
    # only what is asked for is there, so a probe that is added later changes no hash of a trial without it
    __pydantic_extra__: dict[str, AnyProbe]

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        if isinstance(value, str) or callable(value):
            value = [value]
        if isinstance(value, list | tuple):
            entries = [_entry(one) for one in value]
            names = [name for name, _ in entries]
            if len(set(names)) < len(names):
                raise ValueError(f"{names} names a probe twice")
            value = dict(entries)
        if not isinstance(value, Mapping):
            return value
        return {
            str(name): _with_name(name, asked) for name, asked in value.items() if asked is not None or name == "flow"
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """List the probes that are built in beside `flow`; any other name stands for a custom one."""
        found = handler.resolve_ref_schema(handler(schema))
        for name, member in sorted(PROBES.members().items()):
            found["properties"][name] = handler(member.__pydantic_core_schema__)
        custom = handler.resolve_ref_schema(handler(CustomProbe.__pydantic_core_schema__))
        found["additionalProperties"] = {**custom, "required": []}  # the name may be the module
        return found

    def snapshots(self) -> dict[str, SnapshotProbe]:
        """Return the probes that take a snapshot at some epochs, by name and in its order.

        Example:
            >>> ProbeSpec.model_validate(["flow", "lesion", "cka"]).snapshots().keys()
            dict_keys(['cka', 'lesion'])
        """
        return dict(sorted(self.__pydantic_extra__.items()))

    def beyond(self, last: int) -> Iterable[tuple[str, int]]:
        """Yield what is asked for at an epoch after the last: the probe's name and the epoch."""
        for name, probe in self.snapshots().items():
            yield from ((name, epoch) for epoch in sorted(probe.epochs(last)) if epoch > last)


def _entry(value: object) -> tuple[object, object]:
    """Return one of a list's probes as its name and what is asked of it."""
    if isinstance(value, SnapshotProbe):
        return value.name, value
    if not isinstance(value, str | Mapping) and callable(value):
        value = refer(value)
    if isinstance(value, Mapping) and value.keys() & {"module", "name"}:
        return value.get("name") or value["module"], value
    return value if isinstance(value, str) else repr(value), {}


def _with_name(name: object, asked: object) -> object:
    """Return what is asked of a probe together with its name.

    Raises:
        ValueError: the name is not known, or is no name for a custom probe.
    """
    if isinstance(asked, SnapshotProbe):
        asked = asked.model_dump()
    elif not isinstance(asked, Mapping) and callable(asked):
        asked = refer(asked)
    if name == "flow":
        return {key: value for key, value in asked.items() if key != "name"} if isinstance(asked, Mapping) else asked
    known = PROBES.members()
    custom = isinstance(name, str) and (":" in name or (isinstance(asked, Mapping) and "module" in asked))
    if not custom and name not in known:
        raise ValueError(unknown("probe", name, ("flow", *known)))
    if not isinstance(asked, Mapping):
        raise ValueError(f"probe {name}: {asked!r} is not a mapping of settings; expected for example {{at: [end]}}")
    if not custom:
        return {**asked, "name": name}
    if name in known or name in TAKEN:
        raise ValueError(f"probe {name!r} is Leadline's own; give {asked.get('module')} another name")
    if not re.fullmatch(r"[\w.:-]+", str(name)) or len(str(name)) > LONGEST_NAME:
        raise ValueError(
            f"{name!r} names no probe: expected letters, digits, _ . : and -, at most {LONGEST_NAME}; give it a name of"
            " its own, as in probes: {sharpness: {module: package.module:function}}"
        )
    return {"module": name, **asked, "name": name}
