"""Running: studies driven to their end, trials under leases, checkpoints, devices that train together."""
