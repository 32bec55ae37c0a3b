"""Print the commands of a README's ```sh blocks, `make test` last, so that its summary closes the log."""

import re
import sys
from pathlib import Path

blocks = re.findall(r"^```sh\n(.*?)^```", Path(sys.argv[1]).read_text(), re.MULTILINE | re.DOTALL)
commands = [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]
last = "make test"
if last not in commands:
    sys.exit(f"{sys.argv[1]} does not say {last!r}")
print(*[command for command in commands if command != last], last, sep="\n")
