"""Chromium for the tests of the portal's pages. ``python -m testbed.chromium`` starts it once, to see that it does.

It reaches nothing but this machine: no name can be resolved, no proxy is used, and what Chromium does in the background
is switched off, by Playwright's own arguments and by ours.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from testbed import sessions
from testbed.environment import scrubbed
from testbed.waiting import stretched

if TYPE_CHECKING:
    from playwright.sync_api import Browser  # imported where it is used: it takes a quarter of a second

VARIABLE = "OPTIINFRA_CHROMIUM"
COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_SECONDS = 20.0
ARGUMENTS = (
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-domain-reliability",
    "--safebrowsing-disable-auto-update",
    "--no-pings",
)


class ChromiumError(Exception):
    """There is no Chromium, or it does not start; the text says how to get one."""


def executable() -> Path:
    """The program that the variable names, else the system's, else Playwright's own. ChromiumError if there is none."""
    if given := os.environ.get(VARIABLE):
        if found := shutil.which(given):
            return Path(found)
        raise ChromiumError(f"{VARIABLE}={given} is no program: unset it, or {_remedy()}")
    system = next(filter(None, map(shutil.which, COMMANDS)), None)
    program = Path(system) if system else _own_of_playwright()
    if program is None or not program.is_file():
        raise ChromiumError(f"no Chromium was found: {_remedy()}, or name one in {VARIABLE}")
    return program


@contextmanager
def launched() -> Iterator["Browser"]:
    """A headless Chromium. ChromiumError if there is none or it does not start."""
    from playwright.sync_api import Error, sync_playwright

    program = executable()
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=program,
                args=ARGUMENTS,
                # Its sandbox refuses root, for whom it would be no boundary.
                chromium_sandbox=os.geteuid() != 0,
                env=_variables(),
                timeout=1000 * stretched(START_SECONDS),
            )
        except Error as error:
            raise ChromiumError(f"{program} does not start ({_reason(error.message)}): {_remedy()}") from error
        with browser:
            yield browser


def _own_of_playwright() -> Path | None:
    """Where Playwright installs its own, if Playwright is installed: unit tests do without."""
    if find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return Path(playwright.chromium.executable_path)


def _variables() -> dict[str, str | float | bool]:
    """Only what every child may see, and the session, by which `invoke clean` finds what a killed one left behind."""
    session = {name: value for name, value in os.environ.items() if name == sessions.VARIABLE}
    return {**scrubbed(os.environ), **session}


def _reason(message: str) -> str:
    """What Chromium itself printed, else the first line of Playwright's long message."""
    printed = re.findall(r"\[err\] (.+)", message)
    return "; ".join(dict.fromkeys(printed)) or message.partition("\n")[0]


def _remedy() -> str:
    own = Path(sys.prefix) / "bin" / "playwright"
    return f"run `{own} install --with-deps chromium`, or `apt-get install chromium` as root"


def main() -> None:
    """Start it, and print which one it is. Exit code 1 with the reason if that fails."""
    try:
        with launched() as browser:
            print(f"Chromium {browser.version}: {executable()}")  # noqa: T201
    except ChromiumError as error:
        sys.exit(f"the tests of the portal's pages need Chromium: {error}")


if __name__ == "__main__":
    main()
