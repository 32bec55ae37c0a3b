"""From a network's specification to what mean-field theory expects of it at initialisation, in numbers and in words."""

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
"""Of what tells inputs apart: what six depth scales leave, about the depth to which Schoenholz et al. 2017 could train
networks."""

VANISHED, EXPLODED = 1e-4, 1e4
"""First block's gradient norm over the last one's: the thresholds of `leadline.probes.words`. A signal of less than
VANISHED of the image's size has vanished as well."""

FAR = 500
"""Layers to which signals are followed."""

_FOLLOWED = 2**12  # units at all pixels together, beyond the last block
_PAIRS = (0.25, 0.75)  # correlations with the image: an unlike pair and one alike


@dataclass(frozen=True)
class Prediction:
    """What to expect of a wide network before it is trained, block by block from the input.

    For images of independent pixels of mean 0 and variance 1.
    """

    spec: NetworkSpec
    blocks: tuple[str, ...]  # names, as in the network
    layers: tuple[int, ...]  # of weights on the way to each block's output, its own included
    second_moment: tuple[float, ...]  # of a block's output, over units and pixels
    kept: tuple[float, ...]  # correlation of a pair alike less that of an unlike one, over what it was for the images
    gradient: tuple[float, ...]  # log10 of the norm of the gradient of a block's output, over the last block's
    sigma_w2: tuple[float, float]  # fan-in x variance of a weight, least and greatest; without the first layer
    sigma_b2: tuple[float, float]
    fixed: Fixed | None  # where all layers of a plain network are one point of the plane
    survives: float  # layers that signals survive; infinity: more than FAR
    twin: "Prediction | None" = None  # the same with shortcuts where this has none, without them where it has

    @property
    def depth(self) -> int:
        """Layers of weights up to the last block's output."""
        return self.layers[-1]

    def words(self) -> str:
        """Return the prediction in sentences, the twin's last."""
        said = [
            f"{self.spec.activation}, {self.spec.initialisation.name} (sigma_w^2 = {_span(self.sigma_w2)}, sigma_b^2 ="
            f" {_span(self.sigma_b2)}): {self._outcome()}"
        ]
        if self.fixed is not None:
            fixed = self.fixed
            said.append(
                f"Fixed point: q* = {fixed.q:.3g}, c* = {fixed.c:.3g}, chi_1 = {fixed.chi_1:.3g} ({fixed.phase});"
                f" depth scales: variance {_scale(fixed.xi_q)}, correlation {_scale(fixed.xi_c)}, squared gradient"
                f" {_scale(fixed.xi_gradient)}."
            )
        if self.twin is not None:
            word = "without" if self.twin.spec.block.shortcut.kind == "none" else "with"
            said.append(f"The same {word} shortcuts: {self.twin._outcome()}")
        return " ".join(said)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data, the words included; what is infinite is None."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain |= {
            "spec": self.spec.model_dump(mode="json"),
            "fixed": self.fixed and asdict(self.fixed),
            "twin": self.twin and self.twin.to_json(),
            "words": self.words(),
        }
        return {key: _finite(value) for key, value in plain.items()}

    def _outcome(self) -> str:
        if self.survives < self.depth:
            signals = f"signals survive about {max(1, round(self.survives))} of {self.depth} layers"
        else:
            # the slower signals fade, the less the last digits mean
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
    """Predict how deep signals and gradients reach in a network before it is trained.

    Args:
        spec: convolutional or fully connected, plain or residual, without normalisation.
        input_shape: channels, height, width of an image.
        twin: whether to predict the same network with its shortcuts put in, or left out, as well.
        seed: of the population that stands for the units; another moves numbers by a per cent or so.

    Raises:
        SpecError: an assumption of the theory fails, or the network cannot take images of this shape.
    """
    if isinstance(spec, ModuleSpec):
        raise SpecError(
            f"mean-field theory does not cover {spec.module}: the theory needs the distribution of every layer's"
            f" weights, which a custom module does not specify; describe it as a NetworkSpec"
        )
    for problem in _uncovered(spec):
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
    survives = _survives(walk, last, x, layers, states)
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
    """What is left of a signal."""

    moment: float  # second moment; 1 for the images
    kept: float  # see Prediction

    @property
    def left(self) -> float:
        """1 for the images, 0 or less where too little is left, linear in layers where that falls exponentially."""
        told = 1 - math.log(max(self.kept, 1e-300)) / math.log(LOST)
        size = 1 - math.log(max(self.moment, 1e-300)) / (2 * math.log(VANISHED))
        return min(told, size)


def _state(x: Population) -> _State:
    squares, products = x.square().mean((1, 2, 3)), (x[:1] * x[1:]).mean((1, 2, 3))
    unlike, alike = torch.nan_to_num(products / squares[:1].sqrt() / squares[1:].sqrt()).tolist()
    return _State(float(squares[0]), abs(alike - unlike) / (_PAIRS[1] - _PAIRS[0]))


def _survives(walk: Walk, last: Block, x: Population, layers: list[int], states: list[_State]) -> float:
    """Return the layer after which too little is left; a network that keeps enough goes on with its last block."""
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
    """Return the network with shortcuts if it has none, else without."""
    block = spec.block.model_dump(mode="json")
    if spec.block.shortcut.kind != "none":
        plain = {**spec.initialisation.model_dump(mode="json"), "branch": "none"}
        return spec.with_(block={**block, "shortcut": "none"}, initialisation=plain)
    widths = ([spec.stem.width] if spec.stem else []) + [stage.width for stage in spec.stages]
    # zero padding cannot go to fewer channels
    narrows = any(after < before for before, after in pairwise(widths))
    narrows |= spec.stem is None and spec.layers == "fully-connected"
    return spec.with_(block={**block, "shortcut": "B" if narrows else "A"})


def _uncovered(spec: NetworkSpec) -> Iterator[str]:
    """Yield which assumptions a specification breaks: what it has, which assumption fails, what to do."""
    block, shortcut = spec.block, spec.block.shortcut
    if spec.normalisation == "batch":
        growth = batch_norm_growth(spec.activation)
        yield (
            "normalisation batch: layers no longer act on each image alone; known is that squared gradients of a plain"
            f" network grow by {growth:.3g} a layer with {spec.activation}, and of a pre-activated residual one by"
            f" 1 + {growth**2:.3g} / l in block l of two layers; set normalisation to none"
        )
    elif spec.normalisation != "none":
        yield (
            f"normalisation {spec.normalisation}: it divides by what units of one image have in common, and units no"
            " longer are independent; set normalisation to none"
        )
    if spec.weight_standardisation:
        yield "weight_standardisation: the weights of a unit sum to 0 and are not independent; switch it off"
    if spec.sharing is not None:
        yield "sharing: each layer must draw weights of its own, and a recurrent network uses one draw; switch it off"
    if shortcut.kind in ("exclusive-gating", "shortcut-only-gating"):
        yield (
            f"block.shortcut {shortcut.kind}: a gate multiplies two signals that depend on one input, and gradients go"
            " through both; use A, B, C or scaled"
        )
    if isinstance(shortcut, CustomShortcut):
        yield f"block.shortcut {shortcut.module}: the theory does not know what it computes; use A, B, C or scaled"
    if shortcut.kind == "concatenate":
        yield "block.shortcut concatenate: a layer's units are not drawn from one distribution; use A, B, C or scaled"
    dropped = {
        "block.shortcut dropout": shortcut.dropout
        if isinstance(shortcut, Shortcut) and shortcut.kind == "dropout"
        else 0.0,
        "block.dropout": block.dropout,
        "block.stochastic_depth": block.stochastic_depth,
    }
    for key, rate in dropped.items():
        if rate:
            yield f"{key} {rate:g}: two images no longer go through one network; set it to 0"
    pooled = {"stem.pool": spec.stem is not None and spec.stem.pool}
    pooled |= {f"stages.{number}.pool": stage.pool for number, stage in enumerate(spec.stages)}
    pooled |= {f"stages.{number}.transition": stage.transition is not None for number, stage in enumerate(spec.stages)}
    for key, has in pooled.items():
        if has:
            yield f"{key}: what it gives depends on how neighbouring pixels go together in the data; leave it out"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _span(values: tuple[float, float]) -> str:
    least, greatest = values
    return f"{greatest:.3g}" if greatest - least <= 0.005 * greatest else f"{least:.3g} to {greatest:.3g}"


def _scale(layers: float) -> str:
    return "infinite" if math.isinf(layers) else f"{layers:.2g} layers"
