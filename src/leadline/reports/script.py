"""The one script of a page: the Vega libraries, and the lines of report.js that draw with them."""

import hashlib
from functools import cache
from importlib import metadata, resources
from pathlib import Path

import altair
import platformdirs
import vl_convert

from leadline.data.files import write_cache_file
from leadline.reports.charts.svg import vegalite_version


@cache
def page_script() -> str:
    """Return the script as it stands in a page."""
    # Inside a JavaScript string or regular expression the backslash changes nothing; elsewhere neither can stand.
    return _bundle().replace("\r", "").replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _bundle() -> str:
    """Return the libraries and report.js as one script.

    Putting them together takes about two seconds, so the user's cache folder keeps it.
    """
    snippet = resources.files("leadline.reports").joinpath("templates", "report.js").read_text(encoding="utf-8")
    version = vegalite_version(altair.SCHEMA_URL)
    made_of = "\0".join((metadata.version("vl-convert-python"), version, snippet))
    name = hashlib.sha256(made_of.encode()).hexdigest()
    path = platformdirs.user_cache_path("leadline") / "scripts" / f"{name}.js"
    if (kept := _read(path)) is not None:
        return kept
    bundle: str = vl_convert.javascript_bundle(snippet, vl_version=version)
    write_cache_file(path, f"{_digest(bundle)}\n{bundle}".encode())
    return bundle


def _read(path: Path) -> str | None:
    """Return the script in a file of the cache, below its digest; None: there is none, or it is damaged."""
    try:
        digest, _, bundle = path.read_bytes().decode().partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return bundle if digest == _digest(bundle) else None


def _digest(bundle: str) -> str:
    return hashlib.sha256(bundle.encode()).hexdigest()
