"""Command line: parse, call, print. Heavy modules are imported by the commands that need them."""

import inspect
import os
import sys
import warnings
from typing import Any, TextIO

import typer
from typer.core import TyperGroup, TyperOption

from leadline.cli import compare, datasets, live, networks, results, store, studies, theory
from leadline.cli.options import Trust, Version
from leadline.data.threads import limit_threads
from leadline.errors import LeadlineError, LeadlineWarning
from leadline.text.terminal import protect_streams


class Commands(TyperGroup):
    """The commands; of the two options that Typer adds for shells, --help shows the one that most users need."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, `--show-completion` hidden."""
        params = super().get_params(ctx)
        for param in params:
            if isinstance(param, TyperOption) and param.name == "show_completion":
                param.hidden = True
        return params


app = typer.Typer(
    cls=Commands,
    name="leadline",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich takes longer to import than everything else that `--help` needs
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def main_options(
    trust: Trust = None,
    version: Version = False,
) -> None:
    """A laboratory for depth in neural networks: compare plain, residual and recurrent networks fairly."""
    if trust is not None:
        os.environ["LEADLINE_TRUST"] = trust  # where the processes that a command starts find it too


for part in (networks, studies, live, results, compare, store, datasets, theory):
    for command in part.app.registered_commands:
        command.short_help = inspect.getdoc(command.callback)  # which a list of commands would cut short
for part in (networks, studies, live, results, compare, store):
    app.add_typer(part.app)
app.add_typer(datasets.app, name="data", help="Find, download and check data sets.")
app.add_typer(theory.app, name="theory", help="Compare the theory of deep networks with measurements.")


def main() -> None:
    """Run the command line; an error that the user can fix becomes a line for each problem and exit code 1."""
    protect_streams()
    limit_threads(os.environ)
    warnings.showwarning = _show_warning
    try:
        app()
    except LeadlineError as error:
        for line in error.lines:
            typer.echo(f"leadline: {line}", err=True)
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
