"""Probes: measurements inside a network, each a function of a model and a batch, for any PyTorch module."""
