"""Identity of custom code: results depend on the source of custom functions, so hashes must include it."""

import sys

from leadline.errors import SpecError
from leadline.parts.reference import identify_local, is_local, references
from leadline.parts.source import identify_module
from leadline.parts.trust import check_trust

_identified: dict[str, str] = {}
"""Module -> its identity at first use; imported code does not change afterwards."""


def identify_all(plain: object) -> dict[str, str]:
    """Return reference -> identity of all custom code in plain data, such as the JSON of a trial.

    Raises:
        SpecError: code is not trusted, cannot be found, or has changed since this process imported it.
    """
    return {module: identify(module) for module in sorted(references(plain))}


def identify(module: str) -> str:
    """Return the identity of `package.module:thing`, such as `sha256:9f86d081...`, `torch 2.13.0` or `python 3.11`.

    Raises:
        SpecError: it is not trusted, cannot be found, or has changed since this process imported it.

    Example:
        >>> import torch
        >>> identify("torch.optim:NAdam") == "torch " + torch.__version__.partition("+")[0]
        True
    """
    if is_local(module):
        return identify_local(module)
    check_trust(module)
    package = module.partition(":")[0]
    found = identify_module(package)
    if package in sys.modules and _identified.setdefault(package, found) != found:
        raise SpecError(f"{package} was changed after it was imported; restart Python or the notebook kernel")
    return found
