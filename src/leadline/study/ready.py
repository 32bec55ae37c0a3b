"""The ready studies, found without reading them in full."""

from importlib import resources

import yaml


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
