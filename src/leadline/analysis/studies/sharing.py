"""Which random choices two trials of one seed have in common: a stream is shared only if what feeds it is the same.

Every stream is keyed by the seed and by what is drawn (`leadline.seeds`), so equal seeds are not enough: an order of
other images, or noise for batches of another size, is another draw.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from leadline.analysis.studies.arms import Side
from leadline.parts.augmentations import name_streams
from leadline.parts.base import Spec
from leadline.parts.reference import references
from leadline.specs import NetworkSpec
from leadline.text import join

IN_COMMON = "that both have by name and shape"


@dataclass(frozen=True)
class Stream:
    """One source of randomness of two arms."""

    what: str  # what is drawn, in words
    shared: bool
    why: str = ""  # it is not shared, or to what extent

    def __str__(self) -> str:
        return f"{self.what} ({self.why})" if self.why else self.what


def streams(a: Side, b: Side) -> tuple[Stream, ...]:
    """Return every source that either arm draws from, and whether trials of one seed share it."""
    return (
        _initial_weights(a, b),
        _order(a, b),
        *_augmentation(a, b),
        *_noise(a, b),
        *_choice(a, b),
        *_label_noise(a, b),
    )


def sharing_sentence(found: tuple[Stream, ...]) -> str:
    """Return what pairs share and what they do not, in a sentence."""
    shared, other = ([str(one) for one in found if one.shared is which] for which in (True, False))
    if not shared:
        return f"Trials of one seed share nothing: not {join(other, mark=';')}."
    return f"Trials of one seed share {join(shared, mark=';')}" + (f"; not {join(other, mark=';')}." if other else ".")


def same_training_images(a: Side, b: Side) -> bool:
    """Return whether trials of one seed train on the same images, in the same places."""
    one, two = (_chosen_images(side) for side in (a, b))
    return one == two


def _chosen_images(side: Side) -> tuple[object, ...]:
    """Return what decides which images of its data an arm trains on, as far as it is known without reading them."""
    data, counts = side.trial.data, side.designed.counts
    own_validation = data.known_sizes is not None and data.known_sizes.validation is not None
    return (
        counts.train,
        None if own_validation else counts.validation,
        data.subset_seed if data.train is not None else None,
        data.resample,
        [side.code.get(name) for name in sorted(references(data.model_dump(mode="json", exclude={"augment"})))],
    )


def _initial_weights(a: Side, b: Side) -> Stream:
    what, one, two = "the initial weights", a.trial.network, b.trial.network
    before = [side.trial.pretraining for side in (a, b)]
    if before != [None, None]:
        fed = [(side.trial.pretraining, side.trial.network, side.trial.data) for side in (a, b)]
        same = _same(fed[0], fed[1], a, b)
        return Stream(what, same, "" if same else "pre-training makes them, and is not the same")
    files = [side.weights for side in (a, b)]
    if None in files and files != [None, None]:
        return Stream(what, False, f"{(b if files[0] is None else a).name} alone starts from a file")
    if files[0] != files[1]:
        return Stream(what, False, "they are read from files with different content")
    if files != [None, None]:
        return Stream(what, True, "read from a file" if _same(one, two, a, b) else "as far as a file has them")
    whitened = [_whitened_images(side) for side in (a, b)]
    other = whitened[0] != whitened[1] or (whitened[0] is not None and not same_training_images(a, b))
    but = " but for the first convolution" if other else ""
    if _same(one, two, a, b):
        return Stream(f"{what}{but}", True)
    if not (isinstance(one, NetworkSpec) and isinstance(two, NetworkSpec)):
        return Stream(what, False, "custom code draws them, and is not the same")
    if one.initialisation != two.initialisation:
        return Stream(what, False, "the initialisation is not the same")
    if one.initialisation.branch == "fixup":
        return Stream(what, False, "fixup scales them by each network's depth")
    return Stream(f"{what} of the parameters {IN_COMMON}{but}", True)


_NOT_SEEN = {"train", "validation", "test", "subset_seed", "resample", "task", "path", "label_noise", "augment"}
"""Keys of a data set that say which images are chosen, or are not seen in the images of an evaluation."""


def _whitened_images(side: Side) -> Mapping[str, Any] | None:
    """Return how the images look that a first convolution whitens; None: it does not."""
    if not side.trial.training.whitening:
        return None
    seen: Mapping[str, Any] = side.trial.data.model_dump(mode="json", exclude=_NOT_SEEN)
    return seen


def _order(a: Side, b: Side) -> Stream:
    what = "the order of images"
    if not same_training_images(a, b):
        return Stream(what, False, _other_images(a, b))
    sizes = [side.trial.training.batch_size for side in (a, b)]
    return Stream(what, True, "" if sizes[0] == sizes[1] else f"divided into batches of {sizes[0]} and of {sizes[1]}")


def _augmentation(a: Side, b: Side) -> Iterator[Stream]:
    every = [side.trial.data.augmentations for side in (a, b)]
    if max(map(len, every)) < 2 or every[0] == every[1]:
        yield from _one_augmentation("augmentation", a.trial.data.augment, b.trial.data.augment, a, b)
        return
    has = [{each.called: each for each in own} for own in every]
    drawn = [dict(zip(own, name_streams(tuple(own.values())), strict=True)) for own in has]
    for name in dict.fromkeys([*has[0], *has[1]]):
        what = f"augmentation by {name}"
        if name in has[0] and name in has[1] and drawn[0][name] != drawn[1][name]:
            yield Stream(what, False, "it is drawn from another stream")
        else:
            yield from _one_augmentation(what, has[0].get(name), has[1].get(name), a, b)


def _one_augmentation(what: str, one: object, two: object, a: Side, b: Side) -> Iterator[Stream]:
    if one is None and two is None:
        return
    if one is None or two is None:
        yield Stream(what, False, f"{(b if one is None else a).name} alone has it")
    elif one != two:
        yield Stream(what, False, "it is not the same")
    elif not same_training_images(a, b):
        yield Stream(what, False, _other_images(a, b))
    elif _is_custom(one) and not (_same(one, two, a, b) and _same_batches(a, b)):
        yield Stream(what, False, "custom code draws it, and code or batches are not the same")
    else:
        yield Stream(what, True)


def _noise(a: Side, b: Side) -> Iterator[Stream]:
    what, noisy = "noise", [side for side in (a, b) if "noise" in side.trial.sources]
    if not noisy:
        return
    fed = [(side.trial.network, side.trial.training.optimizer, side.trial.training.loss) for side in (a, b)]
    if len(noisy) == 1:
        yield Stream(what, False, f"{noisy[0].name} alone has it")
    elif not _same_batches(a, b):
        yield Stream(what, False, "it is drawn for each batch, and batches are not the same")
    elif a.trial.training.resizing != b.trial.training.resizing:
        yield Stream(what, False, "images do not have the same size in all epochs")
    elif len(kinds := _kinds_of_devices(a) | _kinds_of_devices(b)) > 1:
        yield Stream(what, False, f"it is drawn on the device, and trials ran on {' and '.join(sorted(kinds))}")
    elif _same(fed[0], fed[1], a, b):
        yield Stream(what, True)
    elif any(map(_is_custom, fed)):
        yield Stream(what, False, "custom code may draw it, and is not the same")
    elif fed[0][0] == fed[1][0]:
        yield Stream(what, True)
    else:
        yield Stream(f"{what} of the layers {IN_COMMON}", True)


def _choice(a: Side, b: Side) -> Iterator[Stream]:
    what, (one, two) = "the choice of images", (side.trial.data.resample for side in (a, b))
    if one is None and two is None:
        return
    if one is None or two is None:
        yield Stream(what, False, f"{(b if one is None else a).name} alone resamples them")
    elif one == "split" and one == two:
        yield Stream(what, True)
    else:
        same = same_training_images(a, b)
        yield Stream(what, same, "" if same else _other_images(a, b))


def _label_noise(a: Side, b: Side) -> Iterator[Stream]:
    what, (one, two) = "label noise", (side.trial.data.label_noise for side in (a, b))
    if one is None and two is None:
        return
    if one is None or two is None:
        yield Stream(what, False, f"{(b if one is None else a).name} alone has it")
    elif one.kind != two.kind:
        yield Stream(what, False, "it is not of the same kind")
    elif not same_training_images(a, b):
        yield Stream(what, False, _other_images(a, b))
    else:
        yield Stream(what, True, "" if one == two else f"at rates {one.rate:g} and {two.rate:g}")


def _same(one: object, two: object, a: Side, b: Side) -> bool:
    """Return whether parts of two arms' trials are the same, with the custom code that they may use."""
    return one == two and (not _is_custom(one) or a.code == b.code)


def _is_custom(part: object) -> bool:
    """Return whether a specification, or one of several, uses custom code."""
    if isinstance(part, tuple):
        return any(map(_is_custom, part))
    return isinstance(part, Spec) and bool(references(part.model_dump(mode="json")))


def _same_batches(a: Side, b: Side) -> bool:
    return same_training_images(a, b) and a.trial.training.batch_size == b.trial.training.batch_size


def _kinds_of_devices(side: Side) -> set[str]:
    return {"CPU" if name == "cpu" else "GPU" for name in side.environments("device")}


def _other_images(a: Side, b: Side) -> str:
    counts = [side.designed.counts.train for side in (a, b)]
    if None not in counts and counts[0] != counts[1]:
        return f"{counts[0]:,} and {counts[1]:,} training images"
    return "other training images"
