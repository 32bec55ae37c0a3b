"""Short names of contrasts, for tables and figures."""

from collections.abc import Sequence

from leadline.analysis.verdict.findings import ContrastFinding


def contrast_labels(contrasts: Sequence[ContrastFinding]) -> list[str]:
    """Return short names of contrasts: the level alone where all contrasts pair the same two arms, level by level."""
    parts = [(*_split_name(contrast.a), *_split_name(contrast.b), _metric_label(contrast)) for contrast in contrasts]
    same_pair = len({(a, b, metric) for a, _, b, _, metric in parts}) == 1
    labels = []
    for contrast, (a, level_a, b, level_b, metric) in zip(contrasts, parts, strict=True):
        if level_a != level_b:
            label = f"{contrast.a} − {contrast.b}"
        elif same_pair and level_a:
            label = level_a
        else:
            label = f"{a} − {b}" + (f", {level_a}" if level_a else "")
        labels.append(label if metric == "test error" else f"{label} ({metric})")
    return labels


def _metric_label(contrast: ContrastFinding) -> str:
    target = "" if contrast.target is None else f" {contrast.target:g}%"
    return contrast.metric.replace("_", " ") + target


def contrast_pair(contrasts: Sequence[ContrastFinding]) -> tuple[str, str] | None:
    """Return the two arms that all contrasts pair, without their levels; None where there are several pairs."""
    pairs = {(_split_name(contrast.a)[0], _split_name(contrast.b)[0]) for contrast in contrasts}
    return pairs.pop() if len(pairs) == 1 else None


def _split_name(arm: str) -> tuple[str, str]:
    """Split `resnet[blocks=5]` into `resnet` and `blocks = 5`."""
    base, _, inside = arm.partition("[")
    return base, inside.removesuffix("]").replace("=", " = ").replace(",", ", ")
