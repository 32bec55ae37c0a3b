"""What differs between two specifications of a study, such as a ready study and one that was made from it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

UNSAID = ("name", "title", "notes", "published", "devices", "based_on")
"""Keys that no trial depends on."""

FREE = ("seeds", "contrasts", "margin", "correction", "decide")
"""Keys that say how many trials there are and what is asked of them, not what a trial is."""

SHOWN = 40
"""Characters of a value that are shown."""


class Difference(NamedTuple):
    """A key whose value differs, with both values."""

    key: str  # dotted
    before: object
    now: object

    @property
    def shown(self) -> tuple[str, str]:
        """Both values in short."""
        return _short(self.before), _short(self.now)


def find_differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Iterator[Difference]:
    """Yield every key whose value differs in two studies given as plain data.

    Example:
        >>> [difference] = find_differences({"training": {"epochs": 10}}, {"training": {"epochs": 3}})
        >>> difference.key, difference.shown
        ('training.epochs', ('10', '3'))
        >>> [difference] = find_differences({"seeds": 3}, {"seeds": list(range(3, 35))})
        >>> difference.shown
        ('3', '[3, 4, 5, ..., 34]')
    """
    for key in dict.fromkeys([*before, *now]):
        one, other = before.get(key), now.get(key)
        if one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from find_differences(one, other, f"{path}{key}.")
        else:
            yield Difference(f"{path}{key}", one, other)


def is_other_experiment(keys: Iterable[str]) -> bool:
    """Return whether a change of these keys changes what is trained, so that what was said of it may not hold.

    Example:
        >>> is_other_experiment(("seeds", "probes.flow")), is_other_experiment(("training.epochs",))
        (False, True)
    """
    return any(key.partition(".")[0] not in (*UNSAID, *FREE, "probes") for key in keys)


def _short(value: object) -> str:
    if value is None:
        return "not given"
    items = list(map(str, value)) if isinstance(value, list) else []
    text = f"[{', '.join(items)}]" if items else str(value)
    if len(text) > SHOWN and len(items) > 4:
        text = f"[{', '.join(items[:3])}, ..., {items[-1]}]"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
