"""The command line: `python -m leadkit --help`."""

import os
import re
import signal
import sys

from leadkit import class_commands, own_commands, result_commands
from leadkit.commands import app

# These register commands with the app
__all__ = ["app", "class_commands", "own_commands", "result_commands"]


def main() -> None:
    """Run a command. SIGTERM stops it as ctrl-C does; expected errors become one line."""
    received: list[int] = []

    def terminate(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    # A shell expands ~ at the start of a word alone, not in --out=~/x.
    given = [re.sub("(?<==)~[^/]*", lambda m: os.path.expanduser(m[0]), a) for a in sys.argv[1:]]
    try:
        app.cli(args=given, prog="python -m leadkit", description="leadkit: LEAD, reproduced.")
    except KeyboardInterrupt:
        print(
            "leadkit: stopped: run the same command again; trainings and sweeps go on from their "
            "last checkpoint",
            file=sys.stderr,
        )
        sys.exit(128 + (received or [signal.SIGINT])[0])
    except (ImportError, ValueError, OSError, ArithmeticError) as error:
        sys.exit(f"leadkit: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
