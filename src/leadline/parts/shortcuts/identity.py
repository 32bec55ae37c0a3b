"""Option A: identity, with zero padding and subsampling if dimensions change (He et al. 2015, section 3.3)."""

from typing import TYPE_CHECKING, Literal

from leadline.parts.shortcuts import SHORTCUTS, ShortcutPart

if TYPE_CHECKING:
    from torch import nn

    from leadline.specs.network import NetworkSpec


@SHORTCUTS.register
class Identity(ShortcutPart):
    """Option A: identity, with zero padding and subsampling if dimensions change (He et al. 2015, section 3.3)."""

    name: Literal["A"] = "A"

    def build(self, network: "NetworkSpec", channels_in: int, channels_out: int, stride: int) -> "nn.Module":
        """Return a module that adds the two."""
        from torch import nn

        from leadline.networks.modules.shortcuts import Add, identity

        return Add(identity("A", channels_in, channels_out, stride), nn.Identity())
