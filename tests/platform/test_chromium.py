"""Sessions that need Chromium end before an environment starts if there is none, or none that starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import chromium, paths

BROKEN = """#!/bin/sh
echo "error while loading shared libraries: libnss3.so" >&2
exit 127
"""


@pytest.mark.parametrize("session", ["security", "test"])
@pytest.mark.parametrize(
    ("broken", "reason"), [(False, "is no program"), (True, "does not start (error while loading shared libraries")]
)
def test_session_without_chromium_starts_no_environment_and_names_the_command(
    session: str, broken: bool, reason: str, tmp_path: Path
) -> None:
    program = tmp_path / "chromium"
    if broken:
        program.write_text(BROKEN)
        program.chmod(0o755)
    variables = os.environ | {chromium.VARIABLE: str(program)}
    command = [sys.executable, "-m", "tests.helpers.nox_session", session]
    done = subprocess.run(command, cwd=paths.ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "playwright install --with-deps chromium`, or `apt-get install chromium`" in done.stderr
    assert "Building orchestrator" not in done.stdout
    assert list(paths.environments_dir().glob(f"{session}-*")) == []
