"""AutoAugment, with the policies that were found on CIFAR-10 and on ImageNet."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.augmentations import AUGMENTATIONS, PixelAugmentation
from leadline.parts.augmentations.numbers import draw_integers, to_uniform
from leadline.parts.augmentations.operations import IDENTITY, Space, apply_drawn
from leadline.parts.base import Spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LEVELS = 10
"""Number of magnitudes of an operation."""

_POLICIES: Mapping[str, str] = {
    "cifar10": """
        invert .1 7, contrast .2 6
        rotate .7 2, translate-x .3 9
        sharpness .8 1, sharpness .9 3
        shear-y .5 8, translate-y .7 9
        auto-contrast .5 8, equalize .9 2
        shear-y .2 7, posterize .3 7
        colour .4 3, brightness .6 7
        sharpness .3 9, brightness .7 9
        equalize .6 5, equalize .5 1
        contrast .6 7, sharpness .6 5
        colour .7 7, translate-x .5 8
        equalize .3 7, auto-contrast .4 8
        translate-y .4 3, sharpness .2 6
        brightness .9 6, colour .2 8
        solarize .5 2, invert .0 3
        equalize .2 0, auto-contrast .6 0
        equalize .2 8, equalize .6 4
        colour .9 9, equalize .6 6
        auto-contrast .8 4, solarize .2 8
        brightness .1 3, colour .7 0
        solarize .4 5, auto-contrast .9 3
        translate-y .9 9, translate-y .7 9
        auto-contrast .9 2, solarize .8 3
        equalize .8 8, invert .1 3
        translate-y .7 9, auto-contrast .9 1
    """,
    "imagenet": """
        posterize .4 8, rotate .6 9
        solarize .6 5, auto-contrast .6 5
        equalize .8 8, equalize .6 3
        posterize .6 7, posterize .6 6
        equalize .4 7, solarize .2 4
        equalize .4 4, rotate .8 8
        solarize .6 3, equalize .6 7
        posterize .8 5, equalize 1 2
        rotate .2 3, solarize .6 8
        equalize .6 8, posterize .4 6
        rotate .8 8, colour .4 0
        rotate .4 9, equalize .6 2
        equalize .0 7, equalize .8 8
        invert .6 4, equalize 1 8
        colour .6 4, contrast 1 8
        rotate .8 8, colour 1 2
        colour .8 8, solarize .8 7
        sharpness .4 7, invert .6 8
        shear-x .6 5, equalize 1 9
        colour .4 0, equalize .6 3
        equalize .4 7, solarize .2 4
        solarize .6 5, auto-contrast .6 5
        invert .6 4, equalize 1 8
        colour .6 4, contrast 1 8
        equalize .8 8, equalize .6 3
    """,
}
"""The sub-policies of Cubuk et al. 2018, appendix A: two operations, each with its probability and its level."""

SubPolicy = tuple[tuple[str, float, int], ...]


def sub_policies(policy: str) -> tuple[SubPolicy, ...]:
    """Return the sub-policies of a policy: two operations each, with probability and level."""
    lines = _POLICIES[policy].split("\n")
    return tuple(
        tuple((name, float(chance), int(level)) for name, chance, level in map(str.split, line.split(",")))
        for line in lines
        if line.strip()
    )


def space(height: int, width: int) -> Space:
    """Return the operations of table 6 with their magnitudes, and then those of the other sign, where there is one."""
    shares = [level / (LEVELS - 1) for level in range(LEVELS)]
    signed = [*shares, *(-share for share in shares)]
    most = {
        "shear-x": 0.3,
        "shear-y": 0.3,
        "translate-x": 150 / 331 * width,
        "translate-y": 150 / 331 * height,
        "rotate": 30.0,
    }
    return (
        (IDENTITY, ()),
        *((name, (0,) * 2 * LEVELS) for name in ("auto-contrast", "equalize", "invert")),
        ("posterize", tuple(8 - round(4 * share) for share in shares) * 2),
        ("solarize", tuple(256 * (1 - share) for share in shares) * 2),
        *((name, tuple(largest * share for share in signed)) for name, largest in most.items()),
        *(
            (name, tuple(0.1 + 1.8 * share for share in shares) * 2)
            for name in ("brightness", "colour", "contrast", "sharpness")
        ),
    )


@AUGMENTATIONS.register
class AutoAugment(Spec, PixelAugmentation):
    """AutoAugment: one of 25 pairs of operations for each image, which a search had found (Cubuk et al. 2018).

    Each operation of the pair is applied with its probability, and half of shears, translations and rotations go the
    other way.
    """

    name: Literal["auto-augment"] = "auto-augment"
    policy: Literal["cifar10", "imagenet"] = Field(
        default="cifar10", description="data set that the search was on; appendix A of the paper"
    )
    fill: int = Field(default=0, ge=0, le=255, description="value of pixels from outside the image")

    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return images after the operations of their sub-policy."""
        import torch

        every = space(*images.shape[2:])
        chosen = numbers[:, 0] % len(sub_policies(self.policy))
        drawn = draw_integers(numbers[:, 1], 4)
        for place, (operations, chances, levels) in enumerate(_tables(self.policy, images.device)):
            is_applied = to_uniform(drawn[:, 2 * place]) < chances[chosen]
            choices = torch.where(is_applied, operations[chosen], 0)
            signs = drawn[:, 2 * place + 1] % 2
            images = apply_drawn(images, choices, levels[chosen] + LEVELS * signs, every, self.fill)
        return images


@lru_cache(maxsize=16)
def _tables(policy: str, device: "torch.device") -> "tuple[tuple[Tensor, Tensor, Tensor], ...]":
    """Return, for the first and the second operation, positions in the space, probabilities and levels: [25] each."""
    import torch

    position = {name: place for place, (name, _) in enumerate(space(1, 1))}
    columns = zip(*sub_policies(policy), strict=True)
    found = []
    for column in columns:
        names, chances, levels = zip(*column, strict=True)
        places = torch.tensor([position[name] for name in names], device=device)
        found.append((places, torch.tensor(chances, device=device), torch.tensor(levels, device=device)))
    return tuple(found)
