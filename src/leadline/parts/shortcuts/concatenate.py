"""Concatenation of the input and the branch's output (DenseNet: Huang et al. 2017, equation 2)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from leadline.parts.shortcuts import SHORTCUTS, ShortcutPart

if TYPE_CHECKING:
    from torch import nn

    from leadline.specs.network import NetworkSpec


@SHORTCUTS.register
class Concatenation(ShortcutPart):
    """Concatenation of the input and the branch's output (DenseNet: Huang et al. 2017, equation 2)."""

    name: Literal["concatenate"] = "concatenate"
    adds: ClassVar[bool] = False
    widens: ClassVar[bool] = True

    def find_problems(self, network: "NetworkSpec") -> Iterator[str]:
        """Yield settings that require blocks of one shape or another order."""
        order = network.block.order
        if order != "full-preactivation":
            yield f"block.shortcut concatenate needs block.order full-preactivation, got {order}"
        if any(stage.stride > 1 for stage in network.stages):
            yield "block.shortcut concatenate needs stride 1 in every stage; use transition between stages"
        if network.sharing is not None:
            yield "sharing needs blocks of one shape, and shortcut concatenate makes each wider than the last"

    def build(self, network: "NetworkSpec", channels_in: int, channels_out: int, stride: int) -> "nn.Module":
        """Return a module that concatenates the two."""
        from leadline.networks.modules.shortcuts import Concatenate

        return Concatenate()
