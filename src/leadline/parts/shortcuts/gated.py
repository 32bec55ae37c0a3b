"""Gates, g = sigmoid(a convolution of the input): 1 - g on the shortcut (He et al. 2016, section 3.2)."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.shortcuts import SHORTCUTS, ShortcutPart

if TYPE_CHECKING:
    from torch import nn

    from leadline.specs.network import NetworkSpec


@SHORTCUTS.register
class Gating(ShortcutPart):
    """`exclusive-gating` also multiplies the branch by g; `shortcut-only-gating` leaves the branch unchanged."""

    name: Literal["exclusive-gating", "shortcut-only-gating"] = "exclusive-gating"
    gate_bias: float = Field(description="initial value of the gates' bias")
    gate_kernel: int = Field(description="kernel size of the gates' convolution")

    def build(self, network: "NetworkSpec", channels_in: int, channels_out: int, stride: int) -> "nn.Module":
        """Return a module that adds the two with gates."""
        from torch import nn

        from leadline.networks.modules.shortcuts import Gated, identity

        size = self.gate_kernel
        gate: nn.Conv2d | nn.Linear = (
            nn.Conv2d(channels_in, channels_out, size, stride, size // 2)
            if network.layers == "convolutional"
            else nn.Linear(channels_in, channels_out)
        )
        path = identity(self.name, channels_in, channels_out, stride)
        return Gated(path, gate, self.name == "exclusive-gating", self.gate_bias)
