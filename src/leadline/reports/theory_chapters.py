"""Which chapters of the theory a study belongs to, with their figures and the commands that print their numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from leadline.data.datasets.parity import Parity
from leadline.reports.charts.chart import Figure
from leadline.reports.page import Drawing, Pointer, Section
from leadline.specs import NetworkSpec
from leadline.study.expand import Arm, ExpandedStudy
from leadline.text import plural
from leadline.text.tables import Table
from leadline.theory.chain_figures import chain_figure
from leadline.theory.chain_forms import ChainShortcut
from leadline.theory.chains import chain
from leadline.theory.parity import COUNTED_TO, FAMILIES, circuit, counts
from leadline.theory.parity_figures import draw, figures, table

BUILT_TO, DRAWN_BITS = 8, 4
"""Bits up to which a report builds parity circuits, in a tenth of a second, and bits of the circuits that it draws."""
DRAWN = ("dnf", "tree", "threshold")
WEIGHTS = (0.2, 0.5, 0.9, 1.1)
MOST_LAYERS = 100
"""Layers of a chain at most, which take a report half a second."""


@dataclass(frozen=True)
class Chapter:
    """A chapter of the documentation on theory, with what a report shows of it."""

    title: str
    page: str  # in the documentation
    commands: tuple[str, ...]  # that its numbers come from
    said: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    pointers: tuple[Pointer, ...] = ()

    @property
    def paragraph(self) -> str:
        """What is shown of the chapter, and where it is."""
        whole = f"The whole chapter is {self.page} of Leadline's documentation."
        return " ".join(filter(None, (f"{self.title}.", self.said, whole)))


def theory_section(study: ExpandedStudy) -> Iterator[Section]:
    """Yield the section with the chapters that a study's arms belong to, if there is one."""
    found = list(chapters(study))
    if found:
        yield Section(
            "theory",
            "Theory",
            tuple(one.paragraph for one in found),
            tuple(figure for one in found for figure in one.figures),
            tuple(own for one in found for own in one.tables),
            tuple(drawing for one in found for drawing in one.drawings),
            pointers=tuple(pointer for one in found for pointer in one.pointers),
            commands=tuple(command for one in found for command in one.commands),
        )


def chapters(study: ExpandedStudy) -> Iterator[Chapter]:
    """Yield the chapters that a study's arms belong to.

    Example:
        >>> from leadline.study.load import load_study
        >>> [chapter.page for chapter in chapters(load_study("parity"))]
        ['docs/theory/parity.md']
    """
    bits = [arm.trial.data.bits for arm in study.arms if isinstance(arm.trial.data, Parity)]
    if bits:
        yield _parity(max(bits))
    blocks = [_blocks(arm) for arm in study.arms if _is_followed(arm) and _shortcut(arm) == "none"]
    if max(blocks, default=0) > 1:
        yield _chain(
            max(blocks), any(_is_followed(arm) and _shortcut(arm) not in ("none", "concatenate") for arm in study.arms)
        )
    if any(arm.trial.pretraining for arm in study.arms):
        yield Chapter(
            "Pre-training: how depth first became possible", "docs/theory/pretraining.md", ("leadline run pretraining",)
        )


def _parity(bits: int) -> Chapter:
    """Return the chapter with the circuits for few bits, and the size of circuits up to a number of bits."""
    most = min(max(bits, DRAWN_BITS), COUNTED_TO)
    frame = counts(range(2, most + 1), beyond=True, built_to=BUILT_TO)
    dnf, tree = (
        {key: law.value(bits) for key, law in FAMILIES[name].laws.items() if key in ("gates", "depth")}
        for name in ("dnf", "tree")
    )
    cost = (
        f"As a circuit, parity of {bits} bits takes {dnf['gates']:,} AND and OR gates at depth {dnf['depth']}, or"
        f" {plural(tree['gates'], 'XOR gate')} at depth {tree['depth']}"
    )
    up_to = f"; the figures go to {most} bits" if most < bits else ""
    return Chapter(
        "Parity: what depth saves",
        "docs/theory/parity.md",
        (f"leadline theory parity --bits 2-{most}",),
        f"{cost}; that a small circuit exists does not say that training finds it. The drawings are of circuits for"
        f" {DRAWN_BITS} bits{up_to}.",
        tuple(replace(one, name=f"theory-{one.name}") for one in figures(frame)),
        (replace(table(frame), name="theory-parity"),),
        tuple(
            Drawing(
                f"theory-parity-{name}-{DRAWN_BITS}",
                f"Parity of {DRAWN_BITS} bits: {FAMILIES[name].title}",
                draw(circuit(name, DRAWN_BITS)),
                folded=False,
            )
            for name in DRAWN
        ),
        (Pointer(f"{cost}:", "theory-parity-gates"),),
    )


def _chain(blocks: int, shortcuts: bool) -> Chapter:
    """Return the chapter with chains as deep as the deepest network, and those with shortcuts if the study has any."""
    layers = min(blocks, MOST_LAYERS)
    kinds: list[ChainShortcut] = ["none", "identity"] if shortcuts else ["none"]
    beside = (
        " With an identity shortcut, each layer multiplies the gradient by 1\N{NO-BREAK SPACE}+\N{NO-BREAK SPACE}W,"
        " which does not vanish for a positive W; it grows less where weights have both signs, as in real networks."
    )
    drawn = chain_figure([chain(weight, layers, shortcut=kind) for kind in kinds for weight in WEIGHTS])
    command = f"leadline theory chain --kind scalar --layers {layers}"
    command += "".join(f" --weight {weight:g}" for weight in WEIGHTS)
    return Chapter(
        "Chains: why gradients vanish and explode",
        "docs/theory/chains.md",
        tuple(command + (f" --shortcut {kind}" if kind != "none" else "") for kind in kinds),
        "In the simplest deep network, with one weight W at every layer, each layer multiplies the gradient by W."
        f"{beside if shortcuts else ''} The chains have {layers} layers; the deepest network of this study without"
        f" normalisation and shortcuts has {blocks} blocks.",
        (replace(drawn, name=f"theory-{drawn.name}", title=f"Gradients in chains of {layers} layers, in theory"),),
        pointers=(Pointer("What one weight at every layer does to gradients:", f"theory-{drawn.name}", "why"),),
    )


def _is_followed(arm: Arm) -> bool:
    """Whether gradients were followed in an arm whose network has no normalisation."""
    network = arm.trial.network
    return arm.trial.probes.flow is not None and isinstance(network, NetworkSpec) and network.normalisation == "none"


def _blocks(arm: Arm) -> int:
    network = arm.trial.network
    return sum(stage.blocks for stage in network.stages) if isinstance(network, NetworkSpec) else 0


def _shortcut(arm: Arm) -> str:
    network = arm.trial.network
    return network.block.shortcut.kind if isinstance(network, NetworkSpec) else ""
