"""Statement coverage of the platform by component, measured in the service processes."""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from testbed import evidence, paths

PACKAGE = PurePosixPath("src/optiinfra")
FIRST = (
    "orchestrator/",
    "agents/cost_agent/",
    "agents/perf_agent/",
    "agents/resource_agent/",
    "agents/app_agent/",
    "portal/",
)


@dataclass(frozen=True)
class Counts:
    """The number of statements, and of those that ran."""

    statements: int = 0
    covered: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.statements + other.statements, self.covered + other.covered)

    @property
    def percent(self) -> int:
        """0 to 100, rounded down so that 100 means every statement; without statements 100."""
        return 100 * self.covered // self.statements if self.statements else 100


def component(path: str) -> str:
    """The component of a file: its folder below `src/optiinfra`, or that of its agent."""
    parts = PurePosixPath(path).relative_to(PACKAGE).parts
    if len(parts) == 1:
        return "./"
    depth = 2 if parts[0] == "agents" and len(parts) > 2 else 1
    return "/".join(parts[:depth]) + "/"


def rows(files: Iterable[tuple[str, Counts]]) -> list[tuple[str, Counts]]:
    """The counts of each component in the report's order, then the total of all statements."""
    found: dict[str, Counts] = dict.fromkeys(FIRST, Counts())
    for path, counts in files:
        name = component(path)
        found[name] = found.get(name, Counts()) + counts
    others = sorted(name for name in set(found) - set(FIRST) if found[name].statements)
    listed = [(name, found[name]) for name in (*FIRST, *others)]
    return [*listed, ("TOTAL", sum(found.values(), Counts()))]


def render(listed: list[tuple[str, Counts]]) -> str:
    """The block that the terminal shows: a line for each component, and the total under a rule."""
    *components, total = [f"{name} {counts.percent}%" for name, counts in listed]
    return "\n".join(["Coverage Summary:", *components, "-----", total])


def combine(data_dir: Path, target: Path) -> list[tuple[str, Counts]]:
    """Combine the data of all processes into `target`, and return the counts of each file.

    Writes `htmlcov/` and `reports/coverage.xml`. Raises coverage's NoDataError when there is no data.
    """
    from coverage import Coverage

    measured = Coverage(data_file=str(target), config_file=str(paths.ROOT / ".coveragerc"))
    target.unlink(missing_ok=True)
    # Given a folder, coverage would combine only files whose names start with the target's.
    measured.combine([str(file) for file in sorted(data_dir.glob(".coverage.*"))], strict=True, keep=True)
    measured.save()
    measured.html_report(directory=str(paths.ROOT / "htmlcov"))
    measured.xml_report(outfile=str(paths.ROOT / "reports" / "coverage.xml"))
    counts = []
    for file in sorted(measured.get_data().measured_files()):
        _, statements, _, missing, _ = measured.analysis2(file)
        relative = Path(file).resolve().relative_to(paths.ROOT).as_posix()
        counts.append((relative, Counts(len(statements), len(statements) - len(missing))))
    return counts


def main() -> None:
    """``python -m testbed.coverage_summary SESSION --name ENVIRONMENT``: print the summary and save the data."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("session")
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    target = evidence.folder_of(arguments.session) / "coverage.data"
    counts = combine(paths.state_dir(arguments.name) / "coverage", target)
    print(render(rows(counts)))  # noqa: T201


if __name__ == "__main__":
    main()
