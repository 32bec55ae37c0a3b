"""Networks by the names that their papers gave them: each a function that returns a specification.

One file holds one group; importing it registers its functions under their names. A custom network joins them by
`register_family`.
"""

from leadline.networks.families.cifar import cifar_plain, cifar_preresnet, cifar_resnet
from leadline.networks.families.comparative import comparative_cnn, comparative_plain, comparative_resnet
from leadline.networks.families.convolutional import delta_orthogonal_cnn, mnist_cnn
from leadline.networks.families.dense import densenet
from leadline.networks.families.highway import highway
from leadline.networks.families.imagenet import imagenet_plain, imagenet_preresnet, imagenet_resnet, resnext
from leadline.networks.families.mlp import mlp
from leadline.networks.families.recurrent import recnet, recurrent_resnet
from leadline.networks.families.registry import FAMILIES, Argument, family, list_arguments, register_family
from leadline.networks.families.wide import wide_resnet

__all__ = [
    "FAMILIES",
    "Argument",
    "cifar_plain",
    "cifar_preresnet",
    "cifar_resnet",
    "comparative_cnn",
    "comparative_plain",
    "comparative_resnet",
    "delta_orthogonal_cnn",
    "densenet",
    "family",
    "highway",
    "imagenet_plain",
    "imagenet_preresnet",
    "imagenet_resnet",
    "list_arguments",
    "mlp",
    "mnist_cnn",
    "recnet",
    "recurrent_resnet",
    "register_family",
    "resnext",
    "wide_resnet",
]
