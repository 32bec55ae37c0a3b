"""A process that draws charts: it answers each line of its input with a line, both JSON, until the input ends.

It is run as a file of its own and imports nothing but what it draws with.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import vl_convert


def answer(request: dict[str, Any]) -> str:
    """Return a chart as SVG, or the Vega libraries with the code that uses them, as a request asks."""
    version = request["version"]
    if "specification" in request:
        return vl_convert.vegalite_to_svg(request["specification"], vl_version=version)
    bundle: str = vl_convert.javascript_bundle(request["snippet"], vl_version=version)
    return bundle


def main() -> None:
    """Answer until the input ends; what libraries print goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides what Ctrl-C means
    with suppress(BrokenPipeError), os.fdopen(os.dup(1), "w") as answers:  # whoever asked may be gone
        os.dup2(2, 1)
        for line in sys.stdin:
            try:
                reply = {"drawn": answer(json.loads(line))}
            except Exception as error:  # of a chart that custom code has made
                reply = {"error": str(error)}
            print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
