"""Command line: parse, call, print. Heavy modules are imported by the commands that need them."""

import sys
import warnings
from typing import TextIO

import typer

from leadline.cli import datasets, networks, results, studies, theory
from leadline.errors import LeadlineError, LeadlineWarning

app = typer.Typer(
    name="leadline",
    help="A laboratory for depth in neural networks: compare plain, residual and recurrent networks fairly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (networks, studies, results):
    app.add_typer(part.app)
app.add_typer(datasets.app, name="data", help="Find, download and check data sets.")
app.add_typer(theory.app, name="theory", help="Compare the theory of deep networks with measurements.")


def main() -> None:
    """Run the command line; an error that the user can fix becomes one line and exit code 1, a warning one line."""
    warnings.showwarning = _show_warning
    try:
        app()
    except LeadlineError as error:
        typer.echo(f"leadline: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except OSError as error:  # a full disk, a name that is too long, a file that may not be read
        typer.echo(f"leadline: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, LeadlineWarning):
        typer.echo(f"leadline: {message}", err=True)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))
