"""Shortcuts: the base class, the registry, and custom shortcuts; each built-in shortcut has its own file.

A shortcut is found by its name. Its settings are its fields, which are set by `arguments`, or by the field of the same
name in `leadline.specs.Shortcut`, such as `gate_bias`. PyTorch is imported only when a shortcut is built.
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
    """Base class of shortcuts, which combine the input of a block with the output of its branch."""

    adds: ClassVar[bool] = True
    """Whether the branch is added, so that it can be initialised to zero or dropped."""
    widens: ClassVar[bool] = False
    """Whether the channels of the input and of the branch are concatenated."""

    def find_problems(self, network: "NetworkSpec") -> Iterator[str]:
        """Yield the reasons why the shortcut cannot be used in a network, one line each."""
        yield from ()

    @abstractmethod
    def build(self, network: "NetworkSpec", channels_in: int, channels_out: int, stride: int) -> "nn.Module | None":
        """Return a module that combines a block's input and its branch's output, or None for a plain block.

        Args:
            network: the network.
            channels_in: channels of the block's input.
            channels_out: channels of the branch's output.
            stride: stride of the branch.

        Raises:
            SpecError: the shapes cannot be combined.
        """


class ShortcutName:
    """Type annotation for the name of a registered shortcut."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept a known name."""
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
    """A custom function or class that returns a module, which combines a block's input and its branch's output.

    It is called with (channels_in, channels_out, stride) and `arguments`. The module is called with the input x and the
    output y of the branch, and returns maps of the shape of y. It is initialised by its constructor, with global
    generators seeded by its name in the network; during training, they are seeded for each step::

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
        """The reference, instead of the name of a built-in shortcut."""
        return self.module

    @property
    def part(self) -> ShortcutPart:
        """The part that builds the shortcut, which is this object."""
        return self

    def build(self, network: "NetworkSpec", channels_in: int, channels_out: int, stride: int) -> "nn.Module":
        """Return the module.

        Raises:
            SpecError: it cannot be imported, calling it fails, or it does not return a module that combines x and y.
        """
        from leadline.networks.modules.shortcuts import build_custom

        return build_custom(self, network.layers == "convolutional", channels_in, channels_out, stride)
