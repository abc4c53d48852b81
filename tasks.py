"""The environment's verbs: `invoke --list`. Each is a thin call into src/testbed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from invoke import Collection, Context, Exit, task

from testbed import environment as environments
from testbed import health, startup
from testbed.console import console, print_json, progress
from testbed.environment import DEFAULT_NAME, Environment, Settings, SetupError


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn what the user can mend into a message without a traceback."""
    try:
        yield
    except (SetupError, ValueError) as error:
        raise Exit(str(error), code=1) from error


def existing(name: str) -> Environment:
    """The environment of this name, started at some time; Exit when there is none."""
    found = environments.load(name)
    if found is None:
        raise Exit(f"there is no environment {name!r}: `invoke start-test-env` starts one", code=1)
    return found


@task(
    help={
        "name": "the environment's name; only the default has fixed ports",
        "backend": "embedded (default)",
        "coverage": "measure the services' coverage",
        "speed": "simulated seconds a second of the fleet",
    }
)
def start_test_env(
    _context: Context,
    name: str = DEFAULT_NAME,
    backend: str | None = None,
    coverage: bool = False,
    speed: float | None = None,
) -> None:
    """Start everything at once; return when all parts are healthy."""
    out = console(to_stderr=False)
    with user_errors():
        settings = Settings.chosen(backend, coverage=coverage, fleet_speed=speed)
        began = time.monotonic()
        out.print(f"Starting environment [bold]{name}[/] ({settings.backend})")
        startup.start(name, settings, out.print, healthy=lambda row: progress(out, row, time.monotonic() - began))
        out.print(f"All parts are healthy after {time.monotonic() - began:.1f} s.")


@task(help={"name": "the environment's name"})
def stop_test_env(_context: Context, name: str = DEFAULT_NAME) -> None:
    """Stop every process of the environment; data and logs stay."""
    out = console(to_stderr=False)
    with user_errors():
        ran = startup.stop(name, out.print)
    out.print(f"environment {name!r} is stopped" if ran else f"environment {name!r} was not running")


@task(help={"name": "the environment's name", "json": "one document on stdout", "watch": "again every two seconds"})
def health_check(_context: Context, name: str = DEFAULT_NAME, json: bool = False, watch: bool = False) -> None:
    """A row a part; exit 0 only if all are healthy."""
    with user_errors():
        found = existing(name)
        rows = health.check_all(found)
    if json:
        print_json(health.document(found, rows))
    else:
        console(to_stderr=False).print(health.table(rows, f"environment {name}"))
    if not health.all_healthy(rows):
        bad = [f"{row.name}: {row.note}" for row in rows if row.status != "healthy"]
        raise Exit("not healthy:\n  " + "\n  ".join(bad), code=1)


@task(help={"name": "the environment's name"})
def clean(_context: Context, name: str = DEFAULT_NAME) -> None:
    """Stop and remove everything of the environment."""
    out = console(to_stderr=False)
    with user_errors():
        startup.clean(name, out.print)
    out.print(f"environment {name!r} is gone")


namespace = Collection(start_test_env, stop_test_env, health_check, clean)
