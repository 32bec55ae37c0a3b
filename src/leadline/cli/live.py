"""The command that shows studies on a web page while they train."""

from typing import Annotated

import typer

from leadline.cli.options import RUNS, Runs, StoreUrl
from leadline.errors import LeadlineError, not_installed

app = typer.Typer()


@app.command()
def live(
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that other machines reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")] = 8642,
    token: Annotated[
        bool, typer.Option("--token", help="Require a token on this machine too, where others have accounts.")
    ] = False,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
) -> None:
    """Show studies on a web page while they train; the page only reads."""
    try:
        from leadline.live.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise LeadlineError(not_installed("leadline live", str(error.name), "live")) from None

    serve(runs, store_url, host, port, token, lambda line: typer.echo(line))
