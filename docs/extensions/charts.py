"""Charts inside the page, in the page's colours, light or dark; any other image as it is, on paper."""

import re
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.typing import ExtensionMetadata

from leadline.reports.charts.chart import LIGHT, PAGE, Palette


class Charts(SphinxPostTransform):
    """Put the charts of a page inside it."""

    default_priority = 10  # before images are collected for copying
    formats = ("html",)

    def run(self, **_: object) -> None:
        """Replace the images that are charts, and mark the others."""
        for image in list(self.document.findall(nodes.image)):
            path = Path(self.app.srcdir) / image["uri"]
            svg = path.read_text(encoding="utf-8") if path.suffix == ".svg" and path.is_file() else ""
            if 'class="marks"' in svg[:400]:
                drawn = f'<span class="chart" tabindex="0">{in_page_colours(svg, image.get("alt", ""))}</span>'
                image.replace_self(nodes.raw("", drawn, format="html"))
            else:
                image["classes"].append("paper")


def in_page_colours(svg: str, alt: str) -> str:
    """Return a chart as part of a page, in colours that the page's style sheet decides."""
    shown = dict(zip(_colours(LIGHT), _colours(PAGE), strict=True))
    svg = re.sub(r'"(#[0-9a-fA-F]{6})"', lambda match: f'"{shown.get(match[1].lower(), match[1])}"', svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)


def _colours(palette: Palette) -> list[str]:
    return [each.lower() for each in (palette.ink, palette.muted, palette.rule, palette.ground, *palette.arms)]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the transform."""
    app.add_post_transform(Charts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
