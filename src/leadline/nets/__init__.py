"""Networks: specifications built into modules, initialised from named streams, and counted."""

from leadline.nets.inspection import LayerInfo, NetworkInfo, inspect_module, inspect_network
from leadline.nets.network import Network, build, noise_at, skeleton

__all__ = ["LayerInfo", "Network", "NetworkInfo", "build", "inspect_module", "inspect_network", "noise_at", "skeleton"]
