"""Constant factors on shortcut and branch (He et al. 2016, section 3.1)."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.shortcuts import SHORTCUTS, ShortcutPart

if TYPE_CHECKING:
    from torch import nn

    from leadline.specs.network import NetworkSpec


@SHORTCUTS.register
class Scaled(ShortcutPart):
    """Constant factors on shortcut and branch (He et al. 2016, section 3.1)."""

    name: Literal["scaled"] = "scaled"
    shortcut_factor: float = Field(description="factor on the shortcut")
    branch_factor: float = Field(description="factor on the branch")

    def build(self, network: "NetworkSpec", channels_in: int, channels_out: int, stride: int) -> "nn.Module":
        """Return a module that adds the two, each multiplied by its factor."""
        from leadline.networks.modules.layers import Multiply
        from leadline.networks.modules.shortcuts import Add, follow, identity

        path = follow(identity("scaled", channels_in, channels_out, stride), "scale", Multiply(self.shortcut_factor))
        return Add(path, Multiply(self.branch_factor))
