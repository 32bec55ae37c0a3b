"""The ready studies, found without reading them in full."""

import warnings
from importlib import resources
from pathlib import Path

import yaml

from leadline.errors import LeadlineWarning

RENAMED = {
    "degradation-cifar10-small": "degradation-digits",
    "imagenet-18-34-small": "four-stages-digits",
    "initialisation-small": "initialisation-digits",
    "normalisation-small": "normalisation-digits",
    "orders-cifar10-small": "orders-digits",
    "recurrent-mnist-small": "recurrent-digits",
    "shortcuts-cifar10-small": "shortcuts-digits",
}
"""Earlier names of ready studies -> their names."""


def ready_studies() -> dict[str, str]:
    """Return the ready studies as name -> title."""
    return {
        path.name.removesuffix(".yaml"): next(
            (
                str(yaml.safe_load(line)["title"])
                for line in path.read_text(encoding="utf-8").splitlines()
                if line.startswith("title:")
            ),
            "",
        )
        for path in sorted(resources.files("leadline.study").joinpath("studies").iterdir(), key=lambda path: path.name)
        if path.name.endswith(".yaml")
    }


def find_ready_study(name: str) -> str | None:
    """Return the name that a ready study has now, given that or its earlier name; None: no ready study has it.

    Warns:
        LeadlineWarning: it is an earlier name.
    """
    if name in RENAMED:
        warnings.warn(f"study {name} is now called {RENAMED[name]}", LeadlineWarning, stacklevel=2)
        return RENAMED[name]
    return name if name in ready_studies() else None


def is_study(name: str) -> bool:
    """Return whether a name is that of a ready study, now or earlier, or of a YAML file."""
    path = Path(name)
    return name in ready_studies() or name in RENAMED or path.suffix in (".yaml", ".yml") or path.is_file()


def read_ready(name: str) -> str:
    """Return the text of a ready study, as it stands in its file."""
    return resources.files("leadline.study").joinpath("studies", f"{name}.yaml").read_text(encoding="utf-8")
