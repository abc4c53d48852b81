"""The evidence of a session for the release gate, in `reports/evidence/<session>/`."""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed import environment as environments
from testbed import paths
from testbed.backends import backend_of
from testbed.fingerprint import source_files, version

SCHEMA = 1
SESSION = "OPTIINFRA_EVIDENCE"  # name of the session that the evidence of a pytest run belongs to


def session_name() -> str:
    """The name of the present session: what nox says, or `pytest` for a run without nox."""
    return os.environ.get(SESSION) or "pytest"


def folder_of(session: str) -> Path:
    """The folder of a session's evidence, created when missing."""
    folder = paths.ROOT / "reports" / "evidence" / session
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def remove_reports(root: Path) -> None:
    """Remove every report of a checkout: evidence, coverage, screenshots, and the latest results."""
    for folder in ("reports", "htmlcov", "screenshots"):
        shutil.rmtree(root / folder, ignore_errors=True)
    (root / "test-results.xml").unlink(missing_ok=True)


def keep_logs(name: str, target: Path) -> None:
    """Replace `target` by a copy of an environment's logs."""
    shutil.rmtree(target, ignore_errors=True)
    if (found := environments.read(name)) is not None:
        backend_of(found).save_logs()
    folder = paths.log_dir(name)
    if folder.exists():
        shutil.copytree(folder, target)


def tree_hash(root: Path = paths.ROOT) -> str:
    """A digest of the working tree: every file that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=False,
    )
    names = sorted(filter(None, listed.stdout.decode().split("\0"))) if listed.returncode == 0 else []
    files = [root / name for name in names] or source_files(root)
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def manifest(session: str, started: datetime, backend: str) -> dict[str, Any]:
    """The origin of the evidence: the gate accepts only evidence of one commit and tree."""
    return {
        "schema": SCHEMA,
        "session": session,
        "commit": version(),
        "tree": tree_hash(),
        "backend": backend,
        "session_started_at": started.isoformat(),
        "collected_at": datetime.now(UTC).isoformat(),
    }


def collect(session: str, name: str, started: datetime) -> Path:
    """Collect a session's evidence from its environment and the latest reports, and return its folder."""
    folder = folder_of(session)
    for file in (folder / "consistency.json", *folder.glob("performance/*.json")):
        if file.exists() and file.stat().st_mtime < started.timestamp():
            file.unlink()  # from an earlier session
    keep_logs(name, folder / "logs")
    results = paths.ROOT / "test-results.xml"
    if results.exists():
        shutil.copyfile(results, folder / "junit.xml")
    found = environments.read(name)
    backend = found.settings.backend if found else environments.Settings.backend
    (folder / "manifest.json").write_text(json.dumps(manifest(session, started, backend), indent=2))
    return folder


def main() -> None:
    """``python -m testbed.evidence SESSION --name ENVIRONMENT --started SECONDS``: collect a session's evidence."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("session")
    parser.add_argument("--name", required=True)
    parser.add_argument("--started", type=float, required=True, help="start of the session, in seconds since 1970")
    arguments = parser.parse_args()
    folder = collect(arguments.session, arguments.name, datetime.fromtimestamp(arguments.started, UTC))
    print(f"Evidence: {folder.relative_to(paths.ROOT)}")  # noqa: T201


if __name__ == "__main__":
    main()
