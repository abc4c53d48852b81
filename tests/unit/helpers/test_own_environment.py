"""An environment of a test's own, with a fake for its invoke tasks."""

import subprocess

import pytest

from tests.helpers.own_environment import OwnEnvironment, own_environment


def test_a_clean_that_fails_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def invoke(_self: OwnEnvironment, task: str, *_words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([task], task == "clean", "{}", f"{task} could not")

    monkeypatch.setattr(OwnEnvironment, "invoke", invoke)
    with pytest.raises(AssertionError, match="clean could not"), own_environment("mine"):
        pass
