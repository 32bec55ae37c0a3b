"""What families have in common: numbers with bounds, stages of the usual widths, blocks from a depth."""

from typing import Annotated

from pydantic import Field

from leadline.errors import SpecError
from leadline.specs import CustomShortcut, Head, Shortcut, Stage
from leadline.specs.network import Pooling, ShortcutKind

Positive = Annotated[int, Field(ge=1)]
Above0 = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]

AnyShortcut = ShortcutKind | Shortcut | CustomShortcut
AnyHead = Pooling | Head


def to_shortcut(given: AnyShortcut) -> Shortcut | CustomShortcut:
    """Return the shortcut of a kind, or the one that was given."""
    return Shortcut(kind=given) if isinstance(given, str) else given


def to_head(given: AnyHead) -> Head:
    """Return the head of a pooling, or the one that was given."""
    return given if isinstance(given, Head) else Head(pool=given)


def three_stages(blocks: int, widths: tuple[int, int, int]) -> tuple[Stage, ...]:
    """Return three stages of as many blocks, of which the second and third halve the maps."""
    return tuple(
        Stage(blocks=blocks, width=width, stride=1 if number == 0 else 2) for number, width in enumerate(widths)
    )


def blocks_of(depth: int, layers: int, rest: int) -> int:
    """Return n of a network of `layers` n + `rest` layers.

    Raises:
        SpecError: the depth is of no such network; the message names the nearest.
    """
    smallest = layers + rest
    if depth >= smallest and (depth - rest) % layers == 0:
        return (depth - rest) // layers
    below = layers * ((depth - rest) // layers) + rest
    nearest = str(smallest) if depth < smallest else f"{below}, {below + layers}"
    raise SpecError(f"depth {depth} is not {layers}n+{rest}; nearest: {nearest}")
