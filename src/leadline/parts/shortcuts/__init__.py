"""Shortcuts: the kind, its registry, and custom shortcuts; one file for each that is built in.

A member is found by its name. Its settings are its fields, which a specification gives as `arguments`, or, where
`leadline.specs.Shortcut` has a field of that name, such as `gate_bias`, by that. What a member builds, it builds in a
function that imports PyTorch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from leadline.parts.base import Spec
from leadline.parts.reference import Reference
from leadline.parts.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from leadline.specs.network import NetworkSpec

SHORTCUTS: "Registry[ShortcutPart]" = Registry("shortcut", __name__)
"""Every shortcut by name."""


class ShortcutPart(Spec, ABC):
    """How a block's input meets what its branch gives."""

    adds: ClassVar[bool] = True
    """Whether the branch is added to something, so that it may start at zero, or be dropped."""
    widens: ClassVar[bool] = False
    """Whether a block gives its input's channels and its branch's side by side."""

    def find_problems(self, network: "NetworkSpec") -> Iterator[str]:
        """Yield why the shortcut is impossible in a network, a line for each reason."""
        yield from ()

    @abstractmethod
    def build(self, network: "NetworkSpec", channels_in: int, channels_out: int, stride: int) -> "nn.Module | None":
        """Return what is called with a block's input and its branch's output, and joins them; None: a plain block.

        Args:
            network: whose block it is.
            channels_in: of the block's input.
            channels_out: of the branch's output.
            stride: of the branch.

        Raises:
            SpecError: these shapes cannot be joined.
        """


class ShortcutName:
    """Marks text that is the name of a registered shortcut."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take a known name."""
        return core_schema.no_info_after_validator_function(cls._known, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """List the names."""
        return {"enum": sorted(SHORTCUTS.members()), "type": "string"}

    @staticmethod
    def _known(name: str) -> str:
        known = SHORTCUTS.members()
        if name not in known:
            names = [repr(one) for one in sorted(known)]
            raise PydanticCustomError("shortcut", "Input should be {known}", {"known": ", ".join(names)})
        return name


class CustomShortcut(Reference, ShortcutPart):
    """A custom function or class that returns a module, which joins a block's input and its branch's output.

    It is called with (channels_in, channels_out, stride) and `arguments`; the module with (x, y), and gives maps shaped
    as y. It starts as its constructor leaves it, with global generators seeded for its place in the network; what it
    draws while it trains is seeded for each step::

        class Weighted(nn.Module):
            def __init__(self, channels_in, channels_out, stride, start=1.0):
                super().__init__()
                self.path = nn.Conv2d(channels_in, channels_out, 1, stride)
                self.weight = nn.Parameter(torch.full((channels_out, 1, 1), start))

            def forward(self, x, y):
                return y + self.weight * self.path(x)
    """

    @property
    def kind(self) -> str:
        """The reference, where a built-in shortcut has its name."""
        return self.module

    @property
    def part(self) -> ShortcutPart:
        """What builds the shortcut: this itself."""
        return self

    def build(self, network: "NetworkSpec", channels_in: int, channels_out: int, stride: int) -> "nn.Module":
        """Return the module.

        Raises:
            SpecError: it cannot be imported, calling it fails, it returns no module, or the module does not join.
        """
        from leadline.networks.modules.shortcuts import build_custom

        return build_custom(self, network.layers == "convolutional", channels_in, channels_out, stride)
