"""No shortcut: a plain block."""

from typing import TYPE_CHECKING, ClassVar, Literal

from leadline.parts.shortcuts import SHORTCUTS, ShortcutPart

if TYPE_CHECKING:
    from leadline.specs.network import NetworkSpec


@SHORTCUTS.register
class NoShortcut(ShortcutPart):
    """No shortcut: a plain block."""

    name: Literal["none"] = "none"
    adds: ClassVar[bool] = False

    def build(self, network: "NetworkSpec", channels_in: int, channels_out: int, stride: int) -> None:
        """Return None."""
        return
