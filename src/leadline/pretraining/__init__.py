"""Machines that learn one layer without labels, and deep networks that begin where a stack of them ended."""
