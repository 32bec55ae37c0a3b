"""As many random numbers as an augmentation needs from one of each sample, computed on the device of the batch."""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_STEP, _FIRST, _SECOND = (word - 2**64 for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""The constants of SplitMix64, as signed numbers."""

_LEVELS = 2**16
"""Number of equally likely values that a normal number may have."""


def draw_integers(keys: "Tensor", count: int) -> "Tensor":
    """Return `count` random integers from 0 to 2^62 for each key, int64 [b, count].

    Args:
        keys: int64 [b], a random number of each sample.
        count: integers for each.
    """
    return _shift(_draw_words(keys, count), 2)


def to_uniform(integers: "Tensor") -> "Tensor":
    """Return random integers as float32 from 0 to 1, without 1: multiples of 2^-24, which are exact."""
    return (integers % 2**24).float() / 2**24


def draw_normal(keys: "Tensor", count: int) -> "Tensor":
    """Return `count` normal random numbers of mean 0 and deviation 1 for each key, float32 [b, count].

    Each is one of 65,536 equally likely quantiles, the largest 4.3, looked up, so that bits do not depend on the
    device.

    Args:
        keys: int64 [b], a random number of each sample.
        count: numbers for each.
    """
    import torch

    places = _draw_words(keys, -(-count // 4)).view(torch.int16)[:, :count].int() + _LEVELS // 2
    return _quantiles(keys.device).index_select(0, places.flatten()).view(len(keys), count)


def draw_beta(alpha: float, integers: "Tensor") -> "Tensor":
    """Return random numbers of the distribution Beta(alpha, alpha), float32 on the CPU: for another alpha, the same
    quantiles of another distribution.

    Args:
        alpha: above 0.
        integers: random integers from 0 to 2^62.
    """
    import torch
    from scipy.special import betaincinv

    return torch.as_tensor(betaincinv(alpha, alpha, ((integers.float() + 0.5) / 2**62).numpy()))


def _draw_words(keys: "Tensor", count: int) -> "Tensor":
    """Return 64 random bits for each key and place: SplitMix64 (Steele, Lea & Flood 2014) begun at the key."""
    import torch

    words = keys[:, None] + _STEP * torch.arange(1, count + 1, device=keys.device)
    words = (words ^ _shift(words, 30)) * _FIRST
    words = (words ^ _shift(words, 27)) * _SECOND
    return words ^ _shift(words, 31)


def _shift(words: "Tensor", places: int) -> "Tensor":
    """Shift to the right, with zeros from the left."""
    return (words >> places) & ((1 << (64 - places)) - 1)


@lru_cache(maxsize=8)
def _quantiles(device: "torch.device") -> "Tensor":
    import torch

    found: Tensor = torch.special.ndtri((torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS)
    return (found / found.std(correction=0)).float().to(device)
