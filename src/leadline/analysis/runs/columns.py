"""Which column of a table of runs is what: arms, pairs, values, epochs, data sets, guessed from names unless given."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from leadline.errors import DataError, unknown
from leadline.text import join

# fmt: off
ARMS = (
    "arm", "model", "network", "net", "method", "algorithm", "algo", "variant", "architecture", "arch", "config",
    "configuration", "treatment", "condition", "group", "system", "name",
)
PAIRS = (
    "seed", "run_seed", "random_seed", "random_state", "fold", "cv_fold", "repeat", "repetition", "rep", "replicate",
)
DATA_SETS = ("data", "data_set", "dataset", "task", "benchmark", "problem")
EPOCHS = ("epoch", "step", "iteration", "iter", "global_step")
EPOCHS_OF = ("epochs", "steps", "iterations", "iters")
RUNS = ("run", "run_id", "run_name")
STATES = ("state", "status")

COSTS = ("cost", "seconds", "time", "latency")
"""Words of what stands beside the values to compare, and is meant only where there is nothing else."""
LOWER = (
    "error", "err", "loss", "nll", "perplexity", "ppl", "rmse", "mse", "mae", "wer", "cer", "bpc", "bpd", "fid",
    "regret", *COSTS,
)
HIGHER = (
    "accuracy", "acc", "f1", "auc", "auroc", "auprc", "map", "precision", "recall", "r2", "bleu", "rouge", "iou",
    "miou", "dice", "reward", "return", "mcc", "kappa", "psnr", "ssim",
)
SIGN_TURNED = (
    "mean", "root", "median", "log", "max", "brier", "mae", "mse", "rmse", "nll",
)
"""Words after `neg` or `negative` in the name of an error whose sign is turned, as in scikit-learn's scores."""
ABOUT = ("drop", "reduction", "gap", "gain", "improvement", "delta", "change", "difference", "diff", "std")
"""Last words of a name that is not that of a value, but of something about it."""
SHARES = (
    "error", "err", "wer", "cer", "accuracy", "acc", "f1", "auc", "auroc", "auprc", "precision", "recall", "iou",
    "miou", "dice",
)
"""Words of values that are shares, told as fractions of 1 or in per cent."""
NO_SHARES = ("mean", "squared", "absolute", "loss", "square", "log", "reconstruction")
PER_CENT = ("pct", "percent")
"""Words that say that values are in per cent, as the sign does."""
# fmt: on


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are."""

    arm: str
    pair: tuple[str, ...]  # together they name a pair; empty: the table does not say which runs belong together
    values: tuple[str, ...]
    epoch: str | None = None
    data_set: str | None = None
    factors: tuple[str, ...] = ()
    run: str | None = None  # tells the epochs of one run from those of another
    state: str | None = None
    guessed: tuple[str, ...] = ()  # what nobody said, in words

    @property
    def all(self) -> tuple[str, ...]:
        """Every column that is something."""
        single = (self.arm, self.epoch, self.data_set, self.run, self.state)
        return (*(name for name in single if name is not None), *self.pair, *self.values, *self.factors)


def find_columns(
    frame: pd.DataFrame,
    arm: str | None = None,
    pair: Sequence[str] = (),
    values: Sequence[str] = (),
    epoch: str | None = None,
    data_set: str | None = None,
    factors: Sequence[str] = (),
    paired: bool = True,
) -> Columns:
    """Return which column is what; those that are not given are guessed from their names.

    Args:
        frame: a row per run, or per run and epoch.
        arm, pair, values, epoch, data_set, factors: names of columns; see `Columns`.
        paired: whether runs of one data set may be pairs, which those behind means and standard deviations are not.

    Raises:
        DataError: there is no such column, or names leave open which column is meant.

    Example:
        >>> frame = pd.DataFrame({"model": ["a", "b"], "seed": [0, 0], "test_error": [5.1, 4.8], "note": ["", ""]})
        >>> found = find_columns(frame)
        >>> found.arm, found.pair, found.values
        ('model', ('seed',), ('test_error',))
    """
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise DataError(f"column {twice!r} stands twice; rename one of them")
    given = {"--arm": [arm], "--pair": pair, "--value": values, "--epoch": [epoch], "--data-set": [data_set]}
    taken = _check_given({**given, "--factor": factors}, names)
    guessed: list[str] = []

    def free(among: Sequence[str]) -> list[str]:
        return [name for name in names if name not in taken and short_name(name) in among]

    def guess(what: str, found: str) -> str:
        guessed.append(f"{what}: {found}")
        taken.add(found)
        return found

    if epoch is None and (found := free(EPOCHS)):
        epoch = guess("epochs", min(found, key=lambda name: EPOCHS.index(short_name(name))))
        taken.update(found)  # a step beside an epoch tells nothing more
    if arm is None:
        arm = guess("arms", _find_arm(frame, names, taken))
    if data_set is None and (found := free(DATA_SETS)):
        data_set = guess("data sets", _only("data set", "--data-set", found))
    if not pair:
        pair = [guess("pairs", name) for name in free(PAIRS)]
        if not pair and paired and data_set is not None and _distinct(frame[data_set]) > 1:
            pair, data_set, guessed = [data_set], None, [one for one in guessed if not one.startswith("data sets")]
            guessed.append(f"pairs: {pair[0]}")
    run = next(iter(free(RUNS)), None)
    state = next(iter(free(STATES)), None)
    if state is not None:
        guess("how runs ended", state)
    if not values:
        values = [guess("values", _find_value(frame, [name for name in names if name not in taken and name != run]))]
    return Columns(arm, tuple(pair), tuple(values), epoch, data_set, tuple(factors), run, state, tuple(guessed))


def is_arm(name: str) -> bool:
    """Return whether a column may hold the arms, by its name."""
    return short_name(name) in ARMS


def is_pair(name: str) -> bool:
    """Return whether a column may hold what two runs share, by its name."""
    return short_name(name) in PAIRS


def tells_runs_apart(name: str) -> bool:
    """Return whether a column may hold what tells one run from another, by its name."""
    return short_name(name) in {*ARMS, *PAIRS, *DATA_SETS, *RUNS}


def _check_given(given: Mapping[str, Sequence[str | None]], names: Sequence[str]) -> set[str]:
    """Return the columns that are given.

    Raises:
        DataError: there is no such column, or one is given twice.
    """
    taken: set[str] = set()
    for option, columns in given.items():
        for name in columns:
            if name is not None and name not in names:
                raise DataError(f"{option}: {unknown('column', name, names)}")
            if name in taken:
                raise DataError(f"{option}: column {name!r} is given twice; a column is one thing alone")
            if name is not None:
                taken.add(name)
    return taken


def _find_arm(frame: pd.DataFrame, names: Sequence[str], taken: set[str]) -> str:
    left = [name for name in names if name not in taken]
    known = [name for name in left if short_name(name) in ARMS]
    if "arm" in known:
        return "arm"
    several = [name for name in known if _distinct(frame[name]) > 1]
    if several or known:
        return _only("arm", "--arm", several or known)
    others = {*PAIRS, *DATA_SETS, *RUNS, *STATES, *EPOCHS}
    texts = [
        name
        for name in left
        if not pd.api.types.is_numeric_dtype(frame[name])
        and short_name(name) not in others
        and _direction(name) is None
        and 1 < _distinct(frame[name]) < max(2, len(frame))
    ]
    if len(texts) == 1:
        return texts[0]
    hint = ", or say how runs are named, such as --pattern '{arm}_seed{seed}'" if "run" in left else ""
    raise DataError(f"which column names the arms? {_listed(texts or left)}; name it with --arm{hint}")


def _find_value(frame: pd.DataFrame, left: Sequence[str]) -> str:
    known = [name for name in left if _direction(name) is not None and not _is_flag(frame[name])]
    known = [name for name in known if not {*COSTS} & {*_words(name)}] or known
    if len(known) > 1:
        of_test = [name for name in known if "test" in _words(name)]
        known = of_test if len(of_test) == 1 else known
    if not known:
        numeric = [name for name in left if pd.api.types.is_numeric_dtype(frame[name]) and not _is_flag(frame[name])]
        if len(numeric) != 1:
            raise DataError(f"which column has the values to compare? {_listed(numeric or left)}; name it with --value")
        return numeric[0]
    return _only("value to compare", "--value", known)


def _distinct(column: pd.Series) -> int:
    """Return how many different values a column has, of any kind."""
    return int(column.astype(str).nunique())


def _is_flag(column: pd.Series) -> bool:
    return bool(pd.api.types.is_bool_dtype(column))


def _only(what: str, option: str, found: Sequence[str]) -> str:
    if len(found) > 1:
        raise DataError(f"which column is the {what}? {_listed(found)}; name it with {option}")
    return found[0]


def _listed(names: Sequence[str]) -> str:
    there = "there is" if len(names) < 2 else "there are"
    return f"{there} {join(list(names), 12) or 'none left'}"


# --- what the name of a value says


def higher_is_better(name: str) -> bool | None:
    """Return whether higher values are better, as far as a name says so; None: it does not.

    Example:
        >>> higher_is_better("val/top1_acc"), higher_is_better("test_error"), higher_is_better("score")
        (True, False, None)
        >>> higher_is_better("neg_log_loss"), higher_is_better("epochs_to_accuracy")
        (True, None)
    """
    words, higher = _words(name), _direction(name)
    pairs = list(pairwise(words))
    if higher is None or words[-1] in ABOUT or any(one in EPOCHS_OF and two == "to" for one, two in pairs):
        return None
    turned = any(one in ("neg", "negative") and two in SIGN_TURNED for one, two in pairs)
    return higher != turned


def is_share(name: str) -> bool:
    """Return whether a name is that of a share, such as an error rate or an accuracy."""
    words = set(_words(name))
    return not words.isdisjoint(SHARES) and words.isdisjoint(NO_SHARES)


def says_per_cent(name: str) -> bool:
    """Return whether a name says that its values are in per cent.

    Example:
        >>> says_per_cent("error (%)"), says_per_cent("error_pct"), says_per_cent("error")
        (True, True, False)
    """
    return "%" in name or not set(PER_CENT).isdisjoint(_words(name))


def in_words(name: str, per_cent: bool) -> str:
    """Return a name as the wording of a metric; without per cent at its end if that is the unit, told elsewhere.

    Example:
        >>> in_words("accuracy, %", True), in_words("error_pct", True), in_words("val_loss", False)
        ('accuracy', 'error', 'val loss')
    """
    words = name.replace("_", " ").replace("{", "{{").replace("}", "}}")
    unit = "|".join(["%", *(rf"\b{word}\b" for word in PER_CENT)])
    short = re.sub(rf"[\s,]*[(\[]?(?:in )?(?:{unit})[)\]]?\s*$", "", words, flags=re.IGNORECASE)
    return short if per_cent and short else words


def _direction(name: str) -> bool | None:
    """Return whether higher values are better by the single words of a name; None: it has none of them, or both."""
    words = set(_words(name))
    lower, higher = not words.isdisjoint(LOWER), not words.isdisjoint(HIGHER)
    return None if lower == higher else higher


def _words(name: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", apart) if word]


def short_name(name: str) -> str:
    """Return a column's name without the part before its last dot or slash, in small letters.

    Example:
        >>> short_name("config/RunSeed")
        'run_seed'
    """
    return "_".join(_words(re.split(r"[./]", name)[-1]))


def describe(columns: Columns) -> Iterator[str]:
    """Yield what was guessed, in one sentence."""
    if columns.guessed:
        yield f"Guessed from the names of columns: {join(list(columns.guessed), 12, ';')}."
