"""Reading the enrolment files of a folder."""

from pathlib import Path

import pytest

from optiinfra.runtime import enrolment
from optiinfra.runtime.enrolment import Enrolments
from tests.unit.logs import logged
from tests.unit.runtime.enrolments import enrol


def test_unreadable_files_are_skipped_and_logged_once_per_error(tmp_path: Path) -> None:
    enrol(tmp_path, "c")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "notes.txt").write_text("{")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    enrolments = Enrolments(tmp_path)
    with logged(enrolment) as logs:
        for _ in range(3):
            assert list(enrolments.read()) == ["c"]
        assert sorted(Path(entry["path"]).name for entry in logs) == ["broken.json", "folder.json"]
        broken.write_text('{"customer_id": "x", "agent_token": "secret-of-x"}')
        assert list(enrolments.read()) == ["c"]
    assert "gateway_url: Field required" in logs[-1]["error"]
    assert "secret-of-x" not in str(logs)


def test_unreadable_enrolment_is_kept_until_its_file_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, enrolments = enrol(tmp_path, "c"), Enrolments(tmp_path)
    before = enrolments.read()
    path.write_text('{"customer_id": "c", "agent_')  # as seen while it is being written
    assert enrolments.read() == before
    enrol(tmp_path, "c", token="new")
    after = enrolments.read()
    assert after["c"].agent_token == "new"

    def refused(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        for method in ("read_bytes", "iterdir"):
            patched.setattr(Path, method, refused)
            assert enrolments.read() == after
    path.unlink()
    assert enrolments.read() == {}
    tmp_path.rmdir()
    assert enrolments.read() == {}
