"""Networks: specifications built into modules, initialised from named streams, and counted."""

from leadline.networks.modules.building import build, check, check_last_batch, describe_network, inspect_network
from leadline.networks.modules.inspection import LayerInfo, NetworkInfo, inspect_module
from leadline.networks.modules.network import (
    InputShape,
    Network,
    build_network,
    distinct_tensors,
    fill_tensors,
    is_capturable,
    keep_draws,
    noise_at,
    redraw,
    skeleton,
)
from leadline.networks.modules.operations import Operations, count_operations

__all__ = [
    "InputShape",
    "LayerInfo",
    "Network",
    "NetworkInfo",
    "Operations",
    "build",
    "build_network",
    "check",
    "check_last_batch",
    "count_operations",
    "describe_network",
    "distinct_tensors",
    "fill_tensors",
    "inspect_module",
    "inspect_network",
    "is_capturable",
    "keep_draws",
    "noise_at",
    "redraw",
    "skeleton",
]
