"""Parts of a network that a recipe does not train: their parameters have no gradient, their batch statistics stay."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from leadline.specs import TrainingSpec


def freeze(model: nn.Module, spec: TrainingSpec) -> list[nn.Parameter]:
    """Let parameters whose rate is 0 have no gradient; return those that the optimizer gets.

    Raises:
        SpecError: the recipe has rates of parameters that there are not, or trains none.
    """
    named = dict(model.named_parameters())
    spec.check_rates(named)
    for name, parameter in named.items():
        if not spec.rate(name):
            parameter.requires_grad_(False)
    return [parameter for name, parameter in named.items() if spec.rate(name)]


def set_to_train(model: nn.Module, spec: TrainingSpec) -> None:
    """Set a model to training mode, but for batch normalisation that is not trained."""
    model.train()
    for norm in frozen_norms(model, spec):
        norm.eval()


def frozen_norms(model: nn.Module, spec: TrainingSpec) -> list[_BatchNorm]:
    """Return the batch normalisation of which a recipe trains no parameter; without any, its own name has a rate."""
    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    own = ((module, [f"{name}.{each}" for each, _ in module.named_parameters()] or [name]) for name, module in norms)
    return [module for module, names in own if not any(map(spec.rate, names))]
