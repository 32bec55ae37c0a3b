"""Deep belief networks: a stack of RBMs, read upwards as a network and downwards as a generator of images."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.pretraining.fitting import draw_bernoulli, generator
from leadline.pretraining.rbm import RBM
from leadline.seeds import INIT, stream


@dataclass(frozen=True, eq=False)
class DBN:
    """RBMs from the input up, each on the hidden units of the one below: Hinton, Osindero & Teh 2006.

    Raises:
        SpecError: there is no machine, two do not fit on one another, or one above the first has Gaussian units.
    """

    machines: tuple[RBM, ...]

    def __post_init__(self) -> None:
        if not self.machines:
            raise SpecError("a deep belief network without RBMs; expected at least one")
        for number, (below, above) in enumerate(pairwise(self.machines), 2):
            hidden, visible = len(below.hidden_bias), len(above.visible_bias)
            if hidden != visible or above.visible != "bernoulli":
                raise SpecError(
                    f"RBM {number} of a deep belief network has {visible} visible units ({above.visible}); expected"
                    f" {hidden} (bernoulli), the hidden units of the one below"
                )

    def up(self, images: Float[Tensor, "batch visible"]) -> Float[Tensor, "batch hidden"]:
        """Return the top hidden units' probabilities by the mean-field pass: each layer sees those of the one below."""
        for machine in self.machines:
            images = machine.hidden_mean(images)
        return images

    @torch.no_grad()
    def sample(
        self, count: int, steps: int = 1000, seed: int = 0, start: Float[Tensor, "count visible"] | None = None
    ) -> Float[Tensor, "count visible"]:
        """Generate images: Gibbs steps in the top RBM, then one draw down each layer; Hinton et al. 2006, section 5.

        The lowest layer's means are returned, as pictures of them are clearer than draws.

        Args:
            count: the number of images, each from a chain of its own.
            steps: of each chain, at least 1.
            seed: of the stream.
            start: images that chains start from, through the layers below; None: every unit is 1 with probability 1/2.

        Raises:
            SpecError: no image or no step, or another number of images to start from.
        """
        if count < 1 or steps < 1 or (start is not None and len(start) != count):
            given = "" if start is None else f" from {len(start)} images"
            raise SpecError(
                f"{count} samples after {steps} steps{given}; expected at least 1 of each, and as many images"
            )
        top = self.machines[-1]
        random = generator(seed, "sample")
        if start is None:
            hidden = draw_bernoulli(torch.full((count, len(top.hidden_bias)), 0.5).to(top.weight), random)
        else:
            hidden = draw_bernoulli(self.up(start), random)
        hidden = top.gibbs(hidden, steps, random)
        for machine in reversed(self.machines[1:]):
            hidden = draw_bernoulli(machine.visible_mean(hidden), random)
        return self.machines[0].visible_mean(hidden)

    def network(self, classes: int, seed: int = 0) -> nn.Sequential:
        """Return a network to be fine-tuned: the layers with sigmoid units, and a linear head for so many classes.

        The head is drawn uniformly within 1 / sqrt(inputs), its bias is 0.

        Raises:
            SpecError: there would be no class.
        """
        if classes < 1:
            raise SpecError(f"a network for {classes} classes; expected at least 1")
        layers: list[nn.Module] = []
        with torch.no_grad():
            for machine in self.machines:
                layer = _empty(*reversed(machine.weight.shape))
                layer.weight.copy_(machine.weight)
                layer.bias.copy_(machine.hidden_bias)
                layers += [layer, nn.Sigmoid()]
            units = len(self.machines[-1].hidden_bias)
            head = _empty(units, classes)
            random = torch.Generator().manual_seed(stream(seed, INIT, "head.weight"))
            head.weight.uniform_(-1 / math.sqrt(units), 1 / math.sqrt(units), generator=random)
            head.bias.zero_()
        return nn.Sequential(*layers, head).to(self.machines[0].weight)


def _empty(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer without values, which would have been drawn from the global generator."""
    return nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
