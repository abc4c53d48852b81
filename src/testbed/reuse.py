"""``python -m testbed.reuse``: print the name of a running environment that a session can reuse, or an empty line.

Its fingerprint must match: same source, pinned versions, Python, backend and settings.
"""

import argparse
import sys

from testbed import guard, startup
from testbed.environment import DEFAULT_NAME, Settings


def reusable(settings: Settings) -> str | None:
    """The name of the running default environment, if its fingerprint matches these settings."""
    found = startup.running(DEFAULT_NAME)
    return found.name if found is not None and found.fingerprint == settings.fingerprint() else None


def main() -> None:
    """Print the name. Exit code 2 when the production guard refuses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coverage", action="store_true")
    arguments = parser.parse_args()
    try:
        name = reusable(Settings.chosen(None, coverage=arguments.coverage, fleet_speed=None))
    except guard.Refused as refused:
        print(refused, file=sys.stderr)  # noqa: T201
        raise SystemExit(guard.EXIT_CODE) from refused
    print(name or "")  # noqa: T201


if __name__ == "__main__":
    main()
