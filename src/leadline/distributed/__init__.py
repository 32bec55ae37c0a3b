"""One network trained by several processes, each with a device of its own: what they exchange, and how they start."""
