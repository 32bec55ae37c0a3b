"""A first convolution that whitens: filters from the patches of images, instead of random ones."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.networks.modules.layers import StandardisedConv2d
from leadline.networks.modules.network import InputShape

PIXELS = 5 * 2**20
"""Maximum number of pixels of the images that patches of 3x3 are taken from: those of 5,120 images of 32x32."""

EPSILON = 5e-4
"""What is added to the mean square of patches along an eigenvector before it is scaled to 1 (Jordan 2024)."""

FLAT = 1e-6
"""Mean square along an eigenvector, relative to the largest, below which patches count as not varying along it."""

_AT_A_TIME = 2**23  # values of patches in memory


@torch.no_grad()
def find_first_convolution(network: nn.Module, shape: InputShape) -> nn.Conv2d:
    """Return the convolution that takes a network's images, found as the network is applied to one image.

    Args:
        network: on the meta device, or with its weights; left as it was.
        shape: channels, height and width of an image.

    Raises:
        SpecError: the first layer with weights is another one or does not take the image itself, or filters that whiten
            cannot be set in it.

    Example:
        >>> from leadline.networks import cifar_resnet
        >>> from leadline.networks.modules import build
        >>> find_first_convolution(build(cifar_resnet(8), (3, 32, 32), classes=10), (3, 32, 32))
        Conv2d(3, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    image = torch.linspace(-1, 1, shape[0] * shape[1] * shape[2]).reshape(1, *shape).to(device)
    entered: list[tuple[nn.Module, tuple[Tensor, ...]]] = []  # layers, and what they were called with
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda module, given: entered.append((module, given))) for layer in layers]
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()(image)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    first, given = entered[0] if entered else (None, ())
    same = any(one is image or (not image.is_meta and torch.equal(one, image)) for one in given)
    if not isinstance(first, nn.Conv2d) or first.groups != 1 or not same:
        raise SpecError(
            "whitening needs a network whose first layer is a convolution of the image itself, without groups; leave"
            " whitening out"
        )
    if isinstance(first, StandardisedConv2d):
        raise SpecError("whitening sets filters whose mean weight_standardisation removes; use one of them")
    if "weight" not in dict(first.named_parameters(recurse=False)):
        raise SpecError("whitening cannot set the filters of a convolution whose weight is parametrized; leave it out")
    if first.out_channels < 2:
        raise SpecError("whitening needs two filters or more in the first convolution, got 1; make it wider")
    reach = _reach(first)
    if shape[1] < reach[0] or shape[2] < reach[1]:
        raise SpecError(
            f"whitening: the first convolution needs patches of {reach[0]}x{reach[1]}, and images are"
            f" {shape[1]}x{shape[2]}; use a smaller kernel"
        )
    return first


def images_to_read(convolution: nn.Conv2d, shape: InputShape) -> int:
    """Return from how many images `whiten` should take patches: those of `PIXELS`, of fewer if patches are larger.

    Example:
        >>> images_to_read(nn.Conv2d(3, 64, 7), (3, 224, 224))
        19
    """
    values = shape[0] * convolution.kernel_size[0] * convolution.kernel_size[1]
    return max(1, int(PIXELS * min(1, 27 / values)) // (shape[1] * shape[2]))


@torch.no_grad()
def whiten(convolution: nn.Conv2d, images: Float[Tensor, "n c h w"]) -> None:
    """Set the filters of a convolution so that mean products of their outputs for images are 0, and mean squares 1.

    The filters are eigenvectors of the matrix of mean products of a patch's values, each divided by the square root of
    its eigenvalue, which is the mean square of patches along it. Those of the largest eigenvalues come first, then the
    same ones with opposite sign, for an activation that drops one sign. It is the first half whose outputs have mean
    products of 0, so they are uncorrelated if patches have mean 0. Other filters keep their values, as do biases: those
    beyond as many as a patch varies in directions, twice.

    Args:
        convolution: what to change, in place; with m filters for patches that vary in d directions, the first
            2 min(m // 2, d) are set.
        images: as the network sees them, at least as large as the kernel.

    Source: Page 2019, "How to train your ResNet 8: Bag of tricks", which takes the eigenvectors; Jordan 2024, "94% on
    CIFAR-10 in 3.29 seconds on a single GPU", section 3.2, with both signs and this scale.

    Example:
        >>> from torch import nn
        >>> convolution = nn.Conv2d(1, 8, 2, bias=False)
        >>> images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).cumsum(-1)
        >>> whiten(convolution, images)
        >>> outputs = convolution(images)[:, :4].transpose(0, 1).reshape(4, -1)
        >>> torch.allclose(outputs @ outputs.T / outputs.shape[1], torch.eye(4), atol=0.01)
        True
    """
    weight = convolution.weight
    size = weight[0].numel()
    products = torch.zeros(size, size, dtype=torch.float64)
    count = 0
    for some in torch.split(images, max(1, _AT_A_TIME // (size * images[0, 0].numel()))):
        patches = F.unfold(some.double().cpu(), convolution.kernel_size, dilation=convolution.dilation)
        patches = patches.transpose(0, 1).flatten(1)
        products += patches @ patches.T
        count += patches.shape[1]
    values, vectors = torch.linalg.eigh(products / count)  # in rising order
    varies = values > FLAT * values[-1]
    filters = (vectors[:, varies] / (values[varies] + EPSILON).sqrt()).T.flip(0)
    largest = filters.gather(1, filters.abs().argmax(1, keepdim=True))
    filters = (filters * largest.sign()).reshape(-1, *weight.shape[1:])  # an eigenvector has no sign of its own
    used = min(len(weight) // 2, len(filters))
    weight[: 2 * used] = torch.cat([filters[:used], -filters[:used]]).to(weight)


def _reach(convolution: nn.Conv2d) -> tuple[int, ...]:
    """Return height and width of what a filter sees."""
    return tuple(
        step * (size - 1) + 1 for step, size in zip(convolution.dilation, convolution.kernel_size, strict=True)
    )
