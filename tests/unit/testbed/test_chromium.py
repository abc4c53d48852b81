"""Which Chromium is used."""

import re
from pathlib import Path

import pytest

from testbed import chromium
from testbed.chromium import ChromiumError, executable


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of programs, which is empty. Playwright has none of its own."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(chromium.VARIABLE, raising=False)
    monkeypatch.setattr(chromium, "_own_of_playwright", lambda: tmp_path / "own")
    return tmp_path


def program(path: Path) -> Path:
    path.touch(mode=0o755)
    return path


@pytest.mark.parametrize("name", chromium.COMMANDS)
def test_chromium_of_the_system_is_found_by_each_of_its_names(folder: Path, name: str) -> None:
    installed = program(folder / name)
    assert executable() == installed


def test_chromium_is_the_named_one_then_that_of_the_system_then_playwrights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = program(folder / "own")
    assert executable() == own
    system = program(folder / "google-chrome")
    assert executable() == system
    named = program(folder / "named")
    monkeypatch.setenv(chromium.VARIABLE, str(named))
    assert executable() == named


def test_chromium_that_is_named_but_missing_is_not_replaced_by_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(folder / "chromium")
    monkeypatch.setenv(chromium.VARIABLE, str(folder / "missing"))
    with pytest.raises(ChromiumError, match=re.escape(f"OPTIINFRA_CHROMIUM={folder}/missing is no program: unset it")):
        executable()


def test_without_chromium_the_error_names_the_commands_that_install_it() -> None:
    with pytest.raises(ChromiumError, match=r"playwright install --with-deps chromium`, or `apt-get install chromium`"):
        executable()
