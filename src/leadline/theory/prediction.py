"""Predict from a network's specification, with mean-field theory, how signals and gradients propagate in it."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from leadline.errors import SpecError
from leadline.networks.modules.blocks import Block
from leadline.networks.modules.network import InputShape, skeleton
from leadline.seeds import NOISE, stream
from leadline.specs import CustomShortcut, ModuleSpec, NetworkSpec, Shortcut
from leadline.theory.meanfield import Fixed, Point, batch_norm_growth, fixed_point
from leadline.theory.population import FEWEST, Population, Walk, blocks_of

LOST = math.exp(-6)
"""Remaining difference of two inputs at which a signal counts as lost: six depth scales, about the depth to which
Schoenholz et al. 2017 could train networks."""

VANISHED, EXPLODED = 1e-4, 1e4
"""Gradient norm of the first block over that of the last: the thresholds of `leadline.probes.words`. A signal has also
vanished if its size is below VANISHED times that of the image."""

FAR = 500
"""Maximum number of layers for which signals are followed."""

_FOLLOWED = 2**12  # total units of all pixels, beyond the last block
_PAIRS = (0.25, 0.75)  # correlations with the image: a dissimilar pair and a similar one


@dataclass(frozen=True)
class Prediction:
    """Prediction for a wide network before training, block by block from the input.

    It assumes images of independent pixels of mean 0 and variance 1.
    """

    spec: NetworkSpec
    blocks: tuple[str, ...]  # names, as in the network
    layers: tuple[int, ...]  # weight layers up to and including each block
    second_moment: tuple[float, ...]  # of a block's output, over units and pixels
    kept: tuple[float, ...]  # difference in correlation of a similar and a dissimilar pair, relative to the images
    gradient: tuple[float, ...]  # log10 of the norm of the gradient of a block's output, relative to the last block
    sigma_w2: tuple[float, float]  # fan-in times variance of a weight: minimum and maximum without the first layer
    sigma_b2: tuple[float, float]
    fixed: Fixed | None  # if all layers of a plain network are the same point of the plane
    survives: float  # layers that signals survive; infinity: more than FAR
    twin: "Prediction | None" = None  # the same network with shortcuts added or removed

    @property
    def depth(self) -> int:
        """Number of weight layers up to the output of the last block."""
        return self.layers[-1]

    def words(self) -> str:
        """Return the prediction in sentences, ending with the twin."""
        said = [
            f"{self.spec.activation}, {self.spec.initialisation.name} (sigma_w^2 = {_format_range(self.sigma_w2)},"
            f" sigma_b^2 = {_format_range(self.sigma_b2)}): {self._summary()}"
        ]
        if self.fixed is not None:
            fixed = self.fixed
            said.append(
                f"Fixed point: q* = {fixed.q:.3g}, c* = {fixed.c:.3g}, chi_1 = {fixed.chi_1:.3g} ({fixed.phase});"
                f" depth scales: variance {_format_scale(fixed.xi_q)}, correlation {_format_scale(fixed.xi_c)}, squared"
                f" gradient {_format_scale(fixed.xi_gradient)}."
            )
        if self.twin is not None:
            word = "without" if self.twin.spec.block.shortcut.kind == "none" else "with"
            said.append(f"The same {word} shortcuts: {self.twin._summary()}")
        return " ".join(said)

    def to_json(self) -> dict[str, Any]:
        """Return all fields and the words as plain data, with None for infinity."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain |= {
            "spec": self.spec.model_dump(mode="json"),
            "fixed": self.fixed and asdict(self.fixed),
            "twin": self.twin and self.twin.to_json(),
            "words": self.words(),
        }
        return {key: _replace_infinite(value) for key, value in plain.items()}

    def _summary(self) -> str:
        if self.survives < self.depth:
            signals = f"signals survive about {max(1, round(self.survives))} of {self.depth} layers"
        else:
            # the slower signals fade, the less accurate is the depth
            digits = 1 if self.survives > 100 else 2
            further = f"more than {FAR}" if self.survives > FAR else f"about {float(f'{self.survives:.{digits}g}'):.0f}"
            signals = f"signals survive all {self.depth} layers, and would survive {further}"
        if len(self.blocks) == 1:
            return f"{signals}; one block has no gradient ratio."
        log = self.gradient[0]
        vanishing, exploding = log < math.log10(VANISHED), log > math.log10(EXPLODED)
        ratio = ("0" if math.isinf(log) else f"1e{log:+.0f}") if vanishing or exploding else f"{10**log:.2g}"
        verdict = ", vanishing" if vanishing else ", exploding" if exploding else ""
        between = f"first of {len(self.blocks)} blocks to last{verdict}"
        return f"{signals}; at that depth expect a gradient ratio of {ratio}, {between}."


def predict_depth(
    spec: NetworkSpec | ModuleSpec, input_shape: InputShape = (3, 32, 32), *, twin: bool = True, seed: int = 0
) -> Prediction:
    """Predict how deep signals and gradients propagate in a network before training.

    Args:
        spec: a convolutional or fully-connected network, plain or residual, without normalisation.
        input_shape: channels, height, width of an image.
        twin: whether to predict the same network with shortcuts added or removed, too.
        seed: seed of the population that represents the units; it changes the results by about one per cent.

    Raises:
        SpecError: an assumption of the theory is violated, or the network does not accept images of this shape.
    """
    if isinstance(spec, ModuleSpec):
        raise SpecError(
            f"mean-field theory does not cover {spec.module}: the theory needs the distribution of every layer's"
            f" weights, which a custom module does not specify; describe it as a NetworkSpec"
        )
    for problem in _broken_assumptions(spec):
        raise SpecError(f"mean-field theory does not cover {problem}")
    found = _predict(spec, input_shape, seed)
    return replace(found, twin=_predict(_twin(spec), input_shape, seed)) if twin else found


def _predict(spec: NetworkSpec, input_shape: InputShape, seed: int) -> Prediction:
    network = skeleton(spec, input_shape, 2)
    random = torch.Generator().manual_seed(stream(seed, NOISE, "mean-field population"))
    walk = Walk(network, spec.initialisation, random)
    dense = spec.layers == "fully-connected"
    shape = (math.prod(input_shape), 1, 1) if dense else input_shape
    x, _ = walk.through(network.stem, walk.images(shape, _PAIRS))
    blocks = dict(blocks_of(network))
    layers, states, sizes, backs = [], [], [], []
    for block in blocks.values():
        x, back = walk.block(block, x)
        layers.append(len(walk.weights))
        states.append(_state(x))
        sizes.append(walk.channels * x.shape[-2] * x.shape[-1])
        backs.append(back)
    last = list(blocks.values())[-1]
    # the last block's output reaches the linear layer through an activation where blocks are pre-activated
    act = network.head.get_submodule("act") if "act" in dict(network.head.named_children()) else nn.Identity()
    _, back = walk.through(act, x)
    squared = back(torch.ones_like(x[0]))
    logs, taken = [], 0.0
    for size, back in zip(reversed(sizes), reversed(backs), strict=True):
        mean = float(squared.mean())
        if mean == 0:
            logs.append(-math.inf)
            continue
        # what goes back is linear in what comes, so a factor can be taken out before floats have no number for it
        taken += math.log10(mean)
        logs.append((taken + math.log10(size)) / 2)
        squared = back(squared / mean)
    survives = _survival_depth(walk, last, x, layers, states)
    inside = walk.weights[1 : layers[-1]] or walk.weights
    sigma_w2, sigma_b2 = ((min(each), max(each)) for each in zip(*inside, strict=True))
    plain = spec.block.shortcut.kind == "none"
    uniform = max(sigma_w2) - min(sigma_w2) <= 1e-9 * max(sigma_w2) and max(sigma_b2) - min(sigma_b2) <= 1e-9
    return Prediction(
        spec=spec,
        blocks=tuple(blocks),
        layers=tuple(layers),
        second_moment=tuple(state.moment for state in states),
        kept=tuple(state.kept for state in states),
        gradient=tuple(log - logs[0] for log in reversed(logs)),
        sigma_w2=sigma_w2,
        sigma_b2=sigma_b2,
        fixed=fixed_point(Point(spec.activation, math.sqrt(max(sigma_w2)), math.sqrt(max(sigma_b2))))
        if plain and uniform
        else None,
        survives=survives,
    )


@dataclass(frozen=True)
class _State:
    """State of a signal after a block."""

    moment: float  # second moment; 1 for the images
    kept: float  # see `Prediction`

    @property
    def left(self) -> float:
        """1 for the images, 0 or less if the signal is lost; linear in the layers for an exponential decay."""
        difference = 1 - math.log(max(self.kept, 1e-300)) / math.log(LOST)
        size = 1 - math.log(max(self.moment, 1e-300)) / (2 * math.log(VANISHED))
        return min(difference, size)


def _state(x: Population) -> _State:
    squares, products = x.square().mean((1, 2, 3)), (x[:1] * x[1:]).mean((1, 2, 3))
    unlike, alike = torch.nan_to_num(products / squares[:1].sqrt() / squares[1:].sqrt()).tolist()
    return _State(float(squares[0]), abs(alike - unlike) / (_PAIRS[1] - _PAIRS[0]))


def _survival_depth(walk: Walk, last: Block, x: Population, layers: list[int], states: list[_State]) -> float:
    """Return the layer at which the signal is lost; after the network, its last block is repeated."""
    before, left = 0, 1.0
    for layer, state in zip(layers, states, strict=True):
        if state.left <= 0:
            return before + (layer - before) * left / (left - state.left)
        before, left = layer, state.left
    x = x[:, : max(FEWEST, _FOLLOWED // (x.shape[-2] * x.shape[-1]))]
    while before < FAR:
        done = len(walk.weights)
        x, _ = walk.block(last, x)
        layer, state = before + len(walk.weights) - done, _state(x)
        if state.left <= 0:
            return before + (layer - before) * left / (left - state.left)
        before, left = layer, state.left
    return math.inf


def _twin(spec: NetworkSpec) -> NetworkSpec:
    """Return the network with shortcuts if it has none, else without them."""
    block = spec.block.model_dump(mode="json")
    if spec.block.shortcut.kind != "none":
        plain = {**spec.initialisation.model_dump(mode="json"), "branch": "none"}
        return spec.with_(block={**block, "shortcut": "none"}, initialisation=plain)
    widths = ([spec.stem.width] if spec.stem else []) + [stage.width for stage in spec.stages]
    # zero padding cannot reduce the number of channels
    narrows = any(after < before for before, after in pairwise(widths))
    narrows |= spec.stem is None and spec.layers == "fully-connected"
    return spec.with_(block={**block, "shortcut": "B" if narrows else "A"})


def _broken_assumptions(spec: NetworkSpec) -> Iterator[str]:
    """Yield the violated assumptions of a specification: the setting, the reason, and what to change."""
    block, shortcut = spec.block, spec.block.shortcut
    if spec.initialisation.identity:
        yield "initialisation.identity: filters that copy a channel are not drawn at random; turn it off"
    if spec.normalisation == "batch":
        growth = batch_norm_growth(spec.activation)
        yield (
            "normalisation batch: layers do not act on each image separately; with"
            f" {spec.activation}, squared gradients are known to grow by a factor of {growth:.3g} per layer of a plain"
            f" network, and of 1 + {growth**2:.3g} / l in the l-th two-layer block of a pre-activated residual network;"
            " set normalisation to none"
        )
    elif spec.normalisation != "none":
        yield (
            f"normalisation {spec.normalisation}: it divides by a statistic of all units of an image, so units are not"
            " independent; set normalisation to none"
        )
    if spec.weight_standardisation:
        yield "weight_standardisation: the weights of a unit sum to 0 and are not independent; turn it off"
    if spec.sharing is not None:
        yield "sharing: the weights of different layers must be independent, but here they are shared; turn it off"
    if shortcut.kind in ("exclusive-gating", "shortcut-only-gating"):
        yield (
            f"block.shortcut {shortcut.kind}: a gate multiplies two signals that depend on the same input, and"
            " gradients flow through both; use A, B, C or scaled"
        )
    if isinstance(shortcut, CustomShortcut):
        yield f"block.shortcut {shortcut.module}: its function is unknown to the theory; use A, B, C or scaled"
    if shortcut.kind == "concatenate":
        yield "block.shortcut concatenate: the units of a layer have different distributions; use A, B, C or scaled"
    dropped = {
        "block.shortcut dropout": shortcut.dropout
        if isinstance(shortcut, Shortcut) and shortcut.kind == "dropout"
        else 0.0,
        "block.dropout": block.dropout,
        "block.stochastic_depth": block.stochastic_depth,
    }
    for key, rate in dropped.items():
        if rate:
            yield f"{key} {rate:g}: different images pass through different networks; set it to 0"
    pooled = {"stem.pool": spec.stem is not None and spec.stem.pool}
    pooled |= {f"stages.{number}.pool": stage.pool for number, stage in enumerate(spec.stages)}
    pooled |= {f"stages.{number}.transition": stage.transition is not None for number, stage in enumerate(spec.stages)}
    for key, has in pooled.items():
        if has:
            yield f"{key}: its output depends on the correlations of neighbouring pixels in the data; remove it"


def _replace_infinite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_infinite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_infinite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _format_range(values: tuple[float, float]) -> str:
    least, greatest = values
    return f"{greatest:.3g}" if greatest - least <= 0.005 * greatest else f"{least:.3g} to {greatest:.3g}"


def _format_scale(layers: float) -> str:
    return "infinite" if math.isinf(layers) else f"{layers:.2g} layers"
