"""Options B and C: 1x1 projections if dimensions change, or in every block (He et al. 2015, section 3.3)."""

from typing import TYPE_CHECKING, Literal

from leadline.parts.shortcuts import SHORTCUTS, ShortcutPart

if TYPE_CHECKING:
    from torch import nn

    from leadline.specs.network import NetworkSpec


@SHORTCUTS.register
class Projection(ShortcutPart):
    """A 1x1 projection: `B` if dimensions change, `C` in every block, also known as "1x1 conv shortcut"."""

    name: Literal["B", "C"] = "B"

    def build(self, network: "NetworkSpec", channels_in: int, channels_out: int, stride: int) -> "nn.Module":
        """Return a module that adds the projected input, or for B the input itself if dimensions do not change."""
        from torch import nn

        from leadline.networks.modules.shortcuts import Add, identity, projection

        if self.name == "C" or channels_in != channels_out or stride != 1:
            return Add(projection(network, channels_in, channels_out, stride), nn.Identity())
        return Add(identity("B", channels_in, channels_out, stride), nn.Identity())
