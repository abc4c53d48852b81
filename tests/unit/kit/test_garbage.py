"""Garbage collection while a process starts."""

import gc

import pytest

from optiinfra.kit.garbage import collection_paused


@pytest.mark.parametrize("failing", [False, True])
def test_collection_is_off_meanwhile_and_spares_what_was_loaded(failing: bool) -> None:
    assert gc.get_freeze_count() == 0
    try:
        try:
            with collection_paused():
                assert not gc.isenabled()
                if failing:
                    raise ImportError  # noqa: TRY301  as an import in the block would
        except ImportError:
            assert failing
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
