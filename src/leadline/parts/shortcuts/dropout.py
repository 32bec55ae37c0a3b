"""Dropout on the shortcut (He et al. 2016, section 3.3)."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.shortcuts import SHORTCUTS, ShortcutPart

if TYPE_CHECKING:
    from torch import nn

    from leadline.specs.network import NetworkSpec


@SHORTCUTS.register
class DroppedOut(ShortcutPart):
    """Dropout on the shortcut (He et al. 2016, section 3.3)."""

    name: Literal["dropout"] = "dropout"
    dropout: float = Field(description="dropout rate on the shortcut")

    def build(self, network: "NetworkSpec", channels_in: int, channels_out: int, stride: int) -> "nn.Module":
        """Return a module that adds the branch to the input after dropout."""
        from torch import nn

        from leadline.networks.modules.layers import Dropout
        from leadline.networks.modules.shortcuts import Add, follow, identity

        path = identity("dropout", channels_in, channels_out, stride)
        return Add(follow(path, "dropout", Dropout(self.dropout)), nn.Identity())
