"""Which chapters of the theory a study belongs to, and the commands that print their numbers."""

from collections.abc import Iterator
from dataclasses import dataclass

from leadline.data.datasets.parity import Parity
from leadline.specs import NetworkSpec
from leadline.study.expand import Arm, ExpandedStudy


@dataclass(frozen=True)
class Chapter:
    """A chapter of the documentation on theory."""

    title: str
    page: str  # in the documentation
    command: str  # that prints its numbers

    @property
    def sentence(self) -> str:
        """Where the chapter is, and the command."""
        return f"{self.title}: {self.page} of Leadline's documentation; {self.command} prints its numbers."


def chapters(study: ExpandedStudy) -> Iterator[Chapter]:
    """Yield the chapters that a study's arms belong to.

    Example:
        >>> from leadline.study.load import load_study
        >>> [chapter.page for chapter in chapters(load_study("parity"))]
        ['docs/theory/parity.md']
    """
    bits = sorted({arm.trial.data.bits for arm in study.arms if isinstance(arm.trial.data, Parity)})
    if bits:
        yield Chapter("Parity: what depth saves", "docs/theory/parity.md", f"leadline theory parity --bits {bits[-1]}")
    if any(_is_chain(arm) for arm in study.arms):
        yield Chapter(
            "Chains: why gradients vanish and explode",
            "docs/theory/chains.md",
            "leadline theory chain",
        )
    if any(arm.trial.pretraining for arm in study.arms):
        yield Chapter(
            "Pre-training: how depth first became possible", "docs/theory/pretraining.md", "leadline run pretraining"
        )


def _is_chain(arm: Arm) -> bool:
    """Whether gradients were followed in an arm whose network has neither normalisation nor shortcuts."""
    network = arm.trial.network
    if arm.trial.probes.flow is None or not isinstance(network, NetworkSpec):
        return False
    return network.normalisation == "none" and network.block.shortcut.kind == "none"
