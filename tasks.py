"""The environment's commands: `invoke --list`. Each is a thin call into src/testbed."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from testbed import (
    build,
    ci,
    consistency,
    demo,
    evidence,
    guard,
    health,
    logs,
    optional_positional,
    orphans,
    paths,
    prerequisites,
    service_images,
    slack,
    standins,
    startup,
)
from testbed import environment as environments
from testbed.backends import backend_of
from testbed.console import console, print_json, progress
from testbed.environment import DEFAULT_NAME, Environment, Settings, SetupError
from testbed.waiting import WaitTimeoutError

optional_positional.allow()

NAME_HELP = "the environment's name; only the default one has fixed ports"
JSON_HELP = "print one JSON document on stdout"
DEMO_SPEED = 1.0
WATCH_SECONDS = 2.0


@contextmanager
def user_errors() -> Iterator[None]:
    """Show errors that the user can fix as a message without a traceback."""
    try:
        yield
    except guard.Refused as refused:
        raise Exit(str(refused), code=guard.EXIT_CODE) from refused
    except (SetupError, ValueError, WaitTimeoutError, build.BuildError) as error:
        raise Exit(str(error), code=1) from error


def existing(name: str) -> Environment:
    """The environment of this name, whether it runs or not. SetupError when there is none."""
    found = environments.load(name)
    if found is None:
        raise SetupError(f"there is no environment {name!r}: `invoke start-test-env` starts one")
    return found


def started(name: str, settings: Settings) -> Environment:
    """Start an environment with progress on the terminal, after removing what killed sessions left behind."""
    out = console()
    orphans.remove_all(out.print)
    began = time.monotonic()
    out.print(f"Starting environment [bold]{name}[/] ({settings.backend})")
    made = startup.start(name, settings, out.print, healthy=lambda row: progress(out, row, time.monotonic() - began))
    out.print(f"All {len(made.parts)} parts are healthy after {time.monotonic() - began:.1f} s.")
    return made


@task(help={"name": NAME_HELP, "backend": "embedded or compose; default $OPTIINFRA_BACKEND, else embedded"})
def verify_prerequisites(_context: Context, name: str = DEFAULT_NAME, backend: str | None = None) -> None:
    """Show what the machine needs and has; exit 1 if something needed is missing."""
    chosen = backend or os.environ.get("OPTIINFRA_BACKEND") or "embedded"
    with user_errors():
        if chosen not in prerequisites.BACKENDS:
            raise ValueError(f"no backend is called {chosen!r}: use {' or '.join(prerequisites.BACKENDS)}")
        rows = prerequisites.requirements(chosen, startup.running(name))
    console().print(prerequisites.table(rows, chosen))
    if missing := prerequisites.missing(rows, chosen):
        raise Exit(f"missing: {', '.join(row.name for row in missing)}", code=1)


@task(help={"name": "unused: every environment runs the same build"})
def build_all(_context: Context, name: str = DEFAULT_NAME) -> None:
    """Build every service; on the embedded backend: compile it and import every module of it."""
    with user_errors():
        backend = Settings.chosen(None, coverage=False, fleet_speed=None).backend
        built = service_images.build_all if backend == "compose" else build.build_all
        built(lambda line: print(line, flush=True))


@task
def build_standins(_context: Context) -> None:
    """Build images that stand for the official ones on a machine without an image registry."""
    with user_errors():
        standins.build_all(lambda line: print(line, flush=True))


@task(
    help={
        "name": NAME_HELP,
        "backend": "embedded or compose; default $OPTIINFRA_BACKEND, else embedded",
        "coverage": "measure the services' coverage",
        "speed": "simulated seconds per second of the fleet",
    }
)
def start_test_env(
    _context: Context,
    name: str = DEFAULT_NAME,
    backend: str | None = None,
    coverage: bool = False,
    speed: str | None = None,
) -> None:
    """Start all parts at once, and return when they are healthy."""
    with user_errors():
        guard.check_caller(backend)
        # Invoke takes an option's type from its default, so without a default --speed is text.
        number = None if speed is None else float(speed)
        started(name, Settings.chosen(backend, coverage=coverage, fleet_speed=number))
    console().print("■ Environment Ready! Proceed to test execution.")


@task(help={"name": NAME_HELP})
def stop_test_env(_context: Context, name: str = DEFAULT_NAME) -> None:
    """Stop every process of the environment, and keep data and logs."""
    out = console()
    with user_errors():
        ran = startup.stop(name, out.print)
    out.print(f"environment {name!r} is stopped" if ran else f"environment {name!r} was not running")


@task(help={"name": NAME_HELP, "json": JSON_HELP, "watch": "repeat every two seconds until Ctrl-C"})
def health_check(_context: Context, name: str = DEFAULT_NAME, json: bool = False, watch: bool = False) -> None:
    """Show a row for each part; exit 0 only if all are healthy."""
    out = console()
    pause = threading.Event()
    with user_errors():
        while True:
            found = existing(name)
            rows = health.check_all(found)
            if json:
                print_json(health.document(found, rows))
            else:
                out.print(health.table(rows, f"environment {name}"))
            if not watch or pause.wait(WATCH_SECONDS):
                break
    bad = [f"{row.name}: {row.note}" for row in rows if row.status != "healthy"]
    if bad:
        raise Exit("not healthy:\n  " + "\n  ".join(bad), code=1)


@task(help={"name": NAME_HELP, "json": JSON_HELP})
def check_consistency(_context: Context, name: str = DEFAULT_NAME, json: bool = False) -> None:
    """Show every dangling reference between stores and clouds; exit 1 if there is one."""
    with user_errors():
        answer = consistency.fetch(startup.needed(name))
    if json:
        print_json(answer)
    else:
        console().print(consistency.table(answer))
    if not answer["consistent"]:
        raise Exit(consistency.summary(answer), code=1)


@task(help={"name": NAME_HELP, "json": JSON_HELP})
def verify_audit(_context: Context, name: str = DEFAULT_NAME, json: bool = False) -> None:
    """Check that no entry of the audit log was changed or removed; exit 1 if one was."""
    with user_errors():
        answer = consistency.fetch(startup.needed(name), "/admin/audit-verification")
    if json:
        print_json(answer)
    elif answer["verified"]:
        print(f"{answer['entries']:,} audit entries in {answer['chains']:,} chains are as they were written")
    if not answer["verified"]:
        broken = [
            f"  {one['customer_id'] or 'the platform'}, entry {one['seq']}: {one['reason']}" for one in answer["broken"]
        ]
        raise Exit("\n".join([f"broken audit chains: {len(broken)}", *broken]), code=1)


@task(help={"name": NAME_HELP, "json": JSON_HELP + ", with the environment's credentials"})
def status(_context: Context, name: str = DEFAULT_NAME, json: bool = False) -> None:
    """Show addresses and connection strings of the running environment."""
    with user_errors():
        found = startup.needed(name)
    if json:
        print_json(found.document())
        return
    out = console()
    out.print(f"environment {found.name} ({found.settings.backend}), version {found.version}, state {found.state_dir}")
    for part, address in found.urls().items():
        out.print(f"  {part:<18} {address}")


@task(
    name="logs",
    positional=["service"],
    help={"service": "one part; default all", "name": NAME_HELP, "follow": "show new lines until Ctrl-C"},
)
def show_logs(_context: Context, service: str, name: str = DEFAULT_NAME, follow: bool = False) -> None:
    """Show the last lines of the logs."""
    with user_errors():
        save = backend_of(existing(name)).save_logs
        save()  # the names of the files
        logs.show(logs.files(name, service), lambda line: print(line, flush=True), follow=follow, save=save)


@task(help={"name": NAME_HELP, "reports": "also remove reports/, htmlcov/, screenshots/ and test-results.xml"})
def clean(_context: Context, name: str = DEFAULT_NAME, reports: bool = False) -> None:
    """Remove the environment with all its data, and everything that killed sessions left behind."""
    out = console()
    with user_errors():
        startup.clean(name, out.print)
        orphans.remove_all(out.print)
    out.print(f"environment {name!r} is gone")
    if reports:
        evidence.remove_reports(paths.ROOT)
        out.print("reports are gone")


@task(
    positional=["file"],
    help={
        "file": "the estate, in YAML",
        "name": NAME_HELP,
        "json": JSON_HELP,
        "suffix": "makes email and account unique",
    },
)
def seed_estate(
    _context: Context, file: str, name: str = DEFAULT_NAME, json: bool = False, suffix: str | None = None
) -> None:
    """Provision the estate that FILE describes in the running environment."""
    with user_errors():
        guard.check_caller()
        document = demo.seed(startup.needed(name), Path(file), suffix)
    if json:
        print_json(document)
        return
    deployments = ", ".join(each["name"] for each in document["deployments"])
    print(f"customer {document['customer_id']} ({document['email']}): {deployments}")


@task(name="demo", help={"name": NAME_HELP, "suffix": "makes email and account unique, to seed the estate again"})
def run_demo(_context: Context, name: str = DEFAULT_NAME, suffix: str | None = None) -> None:
    """Start the environment at real speed, provision and analyse the sample estate, and print address and login."""
    out = console()
    with user_errors():
        guard.check_caller()
        found = startup.running(name) or started(name, Settings.chosen(None, coverage=False, fleet_speed=DEMO_SPEED))
        customer = demo.seed(found, demo.SAMPLE_ESTATE, suffix)
        demo.analyse(found, customer, out.print)
    out.print(f"Portal:   {customer['portal_url']}")
    out.print(f"Login:    {customer['email']}")
    out.print(f"Password: {customer['password']}")
    out.print("`invoke stop-test-env` ends it.")


@task(
    help={
        "session": "only this session",
        "backend": "only this backend",
        "python": "only this Python",
    }
)
def ci_matrix(_context: Context, session: str = "", backend: str = "", python: str = "") -> None:
    """Print the jobs of the CI workflow as JSON, made from noxfile.py; in GitHub Actions, set the output `jobs` too."""
    with user_errors():
        every_mutant = os.environ.get("GITHUB_EVENT_NAME") not in ci.EVENTS_OF_A_CHANGE
        jobs = ci.matrix(
            ci.sessions(), ci.pythons(), every_mutant=every_mutant, session=session, backend=backend, python=python
        )
    print(json.dumps(jobs))
    ci.set_output("jobs", json.dumps(jobs))


@task(help={"verdict": "what happened, such as failure"})
def notify_slack(_context: Context, verdict: str = "failure") -> None:
    """Tell the channel that CI failed: the verdict, the tests that failed by the files below reports/, and a link."""
    try:
        print(slack.notify(verdict, paths.ROOT / "reports"))
    except slack.NotificationError as error:
        raise Exit(str(error), code=1) from error


@task(help={"job": "its title"})
def ci_summary(_context: Context, job: str = "tests") -> None:
    """Print the results of the last pytest run in Markdown; in GitHub Actions, add them to the summary of the job."""
    text = ci.summary(job, paths.ROOT / "test-results.xml")
    print(text)
    ci.add_to_summary(text)


namespace = Collection(
    verify_prerequisites,
    build_all,
    build_standins,
    start_test_env,
    stop_test_env,
    health_check,
    check_consistency,
    verify_audit,
    status,
    show_logs,
    clean,
    seed_estate,
    run_demo,
    ci_matrix,
    ci_summary,
    notify_slack,
)
