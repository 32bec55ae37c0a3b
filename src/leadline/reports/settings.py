"""How the arms of a study were trained, setting by setting, and to which arms each value belongs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leadline.data.datasets import DataSpec
from leadline.data.split import split_sizes
from leadline.parts.augmentations import MixingAugmentation
from leadline.parts.base import Spec
from leadline.parts.reference import Reference
from leadline.parts.tasks import task_of
from leadline.seeds import name_seed
from leadline.specs import NetworkSpec
from leadline.study.expand import Arm, ExpandedStudy
from leadline.text import join
from leadline.text.tables import Column, Table, plain

NONE = "none"
ONLY_WHERE_USED = {
    "Resampling": NONE,
    "Label noise": NONE,
    "Initial weights": "drawn at random",
    "Rates of layers": NONE,
    "Smaller images": NONE,
    "Parts of a batch": "1",
    "Weight decay of": "all parameters",
    "Warm-up": NONE,
    "Label smoothing": NONE,
    "Gradient clipping": NONE,
    "Averaging of weights": NONE,
    "Early stopping": NONE,
    "Views in evaluation": "1",
    "Pre-training": NONE,
}
"""Setting -> its value where it is not used: such settings are left out where no arm uses them."""


def settings_table(study: ExpandedStudy) -> Table:
    """Return one row per setting and value, with the arms that have it."""
    values = {arm.name: dict(_settings(arm)) for arm in study.arms}
    rows = [
        {"setting": setting, "value": value, "arms": name_arms(study.arms, arms)}
        for setting in next(iter(values.values()))
        for value, arms in _by_value(setting, values).items()
        if any(own[setting] != ONLY_WHERE_USED.get(setting) for own in values.values())
    ]
    seeds = [str(name_seed(seed)) for seed in study.seed_values]
    rows.append({"setting": "Seeds", "value": f"{len(seeds)}: {join(seeds, 10)}", "arms": ALL})
    columns = (
        Column("Setting", ("setting",), plain, numeric=False),
        Column("Value", ("value",), plain, numeric=False),
        Column("Arms", ("arms",), plain, numeric=False),
    )
    return Table("settings", "How the arms were trained", columns, tuple(rows), _loss_note(study))


def _loss_note(study: ExpandedStudy) -> str:
    """Return what the training loss has that validation and test losses do not; empty where they are alike."""
    has = {
        "label smoothing": [arm.name for arm in study.arms if arm.trial.training.label_smoothing],
        "mixed images": [arm.name for arm in study.arms if _mixes(arm)],
        "wrong labels": [arm.name for arm in study.arms if arm.trial.data.label_noise is not None],
        "a loss of its own": [arm.name for arm in study.arms if isinstance(arm.trial.training.loss, Reference)],
    }
    said = [what + _of(study.arms, arms) for what, arms in has.items() if arms]
    return f"The training loss is with {join(said)}; validation and test losses are without." if said else ""


def _mixes(arm: Arm) -> bool:
    return any(isinstance(each, MixingAugmentation) for each in arm.trial.data.augmentations)


def _of(arms: Sequence[Arm], chosen: Sequence[str]) -> str:
    """Return whose something is, in parentheses, where it is not that of every arm."""
    return "" if len(chosen) == len(arms) else f" ({name_arms(arms, chosen)})"


ALL = "every arm"


def name_arms(arms: Sequence[Arm], chosen: Sequence[str]) -> str:
    """Return words for some arms: `every arm`, names without levels, the levels of a factor, or their whole names.

    Example:
        >>> from leadline.study.load import load_study
        >>> arms = load_study("demo").arms
        >>> name_arms(arms, ["plain[blocks=2]", "plain[blocks=5]", "plain[blocks=10]"])
        'plain'
        >>> name_arms(arms, ["plain[blocks=2]", "residual[blocks=2]"])
        'blocks = 2'
    """
    own = set(chosen)
    if len(own) == len(arms):
        return ALL
    for key in (None, *arms[0].factors):
        words = {arm.name: arm.base if key is None else f"{key} = {arm.factors.get(key)}" for arm in arms}
        named = list(dict.fromkeys(words[name] for name in words if name in own))
        if {name for name, said in words.items() if said in named} == own:
            return join(named, len(named))
    return join([arm.name for arm in arms if arm.name in own], len(own))


def _by_value(setting: str, values: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for arm, own in values.items():
        found.setdefault(own[setting], []).append(arm)
    return found


def _settings(arm: Arm) -> Iterator[tuple[str, str]]:
    """Yield every setting of an arm with its value in words."""
    trial = arm.trial
    data, training, network = trial.data, trial.training, trial.network
    yield "Data set", data.display_name
    yield "Images", _sizes(data)
    yield "Image normalisation", data.normalise
    yield "Augmentation", _augmentations(data)
    yield "Resampling", data.resample or NONE
    yield "Label noise", _words(data.label_noise)
    yield "Optimizer", _words(training.optimizer, leave_out=("learning_rate",))
    yield "Weight decay of", "all parameters" if training.decayed == "all" else "weights, not biases and normalisation"
    yield "Learning rate", _value(getattr(training.optimizer, "learning_rate", "of the custom optimizer"))
    drawn = "drawn at random" + ("; the first convolution whitens patches of the images" if training.whitening else "")
    yield "Initial weights", training.weights or drawn
    yield "Rates of layers", _value(training.rates) if training.rates else NONE
    smaller = [f"{one.scale:g} of the size until {one.until:g} of the epochs" for one in training.resizing or ()]
    yield "Smaller images", join(smaller, len(smaller)) if smaller else NONE
    yield "Schedule", _words(training.schedule)
    yield "Warm-up", _words(training.warmup)
    yield "Batch size", _value(training.batch_size)
    yield "Parts of a batch", _value(training.accumulate)
    yield "Epochs", _value(training.epochs)
    yield "Early stopping", _words(training.early_stopping)
    views = training.evaluation
    yield "Views in evaluation", "1" if views is None else f"{views.count} ({_words(views)})"
    yield "Loss", _words(training.loss or task_of(data.task).loss)
    yield "Label smoothing", _value(training.label_smoothing or None)
    yield "Gradient clipping", NONE if training.clip_norm is None else f"norm at most {training.clip_norm:g}"
    yield "Averaging of weights", _words(training.averaging)
    yield "Precision", training.precision
    yield "Pre-training", _words(trial.pretraining)
    if isinstance(network, NetworkSpec):
        yield "Initialisation", _words(network.initialisation)
        yield "Normalisation", network.normalisation
        yield "Activation", network.activation
        yield "Shortcuts", _shortcut(network)
    else:
        for setting in ("Initialisation", "Normalisation", "Activation", "Shortcuts"):
            yield setting, "of the custom module"


def _shortcut(network: NetworkSpec) -> str:
    shortcut = network.block.shortcut
    changed = {key: value for key, value in shortcut.model_dump(exclude_defaults=True).items() if key != "kind"}
    said = ", ".join(f"{key.replace('_', ' ')} {_value(value)}" for key, value in changed.items())
    return f"{shortcut.kind} ({said})" if said else shortcut.kind


def _augmentations(data: DataSpec) -> str:
    said = [(each.called, _words(each)) for each in data.augmentations]
    if len(said) < 2:
        return "".join(words for _, words in said) or NONE
    return "; then ".join(words if words.startswith(name) else f"{name} ({words})" for name, words in said)


def _sizes(data: DataSpec) -> str:
    sizes = split_sizes(data.known_sizes, data) if data.known_sizes else data
    counts = {"training": sizes.train, "validation": sizes.validation, "test": sizes.test}
    known = [f"{count:,} {name}" for name, count in counts.items() if count is not None]
    return join(known) if len(known) == len(counts) else join([*known, "the others as the data have them"])


def _words(part: Any, leave_out: Sequence[str] = ()) -> str:
    """Return a part of a specification in words: its name with its arguments, none if it is absent."""
    if part is None:
        return NONE
    if isinstance(part, Reference):
        arguments = ", ".join(f"{key}={value}" for key, value in part.arguments.items())
        return f"{part.module}({arguments})"
    if not isinstance(part, Spec):  # of custom code that is no specification
        return type(part).__name__
    content = {key: value for key, value in part.model_dump(mode="json").items() if key not in leave_out}
    named = [str(content.pop(key)) for key in ("name", "kind", "method") if isinstance(content.get(key), str)]
    said = [f"{key.replace('_', ' ')} {_value(value)}" for key, value in content.items() if not _is_absent(value)]
    name = " ".join(named)
    return f"{name} ({', '.join(said)})" if name and said else name or ", ".join(said)


def _is_absent(value: Any) -> bool:
    return value is None or value is False or value in (NONE, {}, [])


def _value(value: Any) -> str:
    if value is None:
        return NONE
    if value is True:
        return "yes"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " and ".join(map(_value, value))
    if isinstance(value, Mapping):
        return join([f"{key} {_value(one)}" for key, one in value.items()])
    return f"{value:,}" if isinstance(value, int) else str(value)
