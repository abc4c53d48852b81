"""Sealing of texts with keys that are replaced."""

import hashlib

import pytest

from optiinfra.portal.key_ring import KeyRing

OLD, NEW = "the first key of these unit tests", "the second key of these unit tests"
TEXT = "a text with \N{SNOWMAN}"


def test_sealed_text_shows_nothing_and_is_another_one_each_time() -> None:
    ring = KeyRing("tests", OLD)
    first, second = ring.seal(TEXT), ring.seal(TEXT)
    assert ring.unseal(first) == ring.unseal(second) == TEXT
    assert first != second
    assert first.isascii()
    assert hashlib.sha256(OLD.encode()).hexdigest()[:16] != first.partition(".")[0], "the id is a part of the key"


def test_previous_key_unseals_while_it_is_listed_and_seals_no_more() -> None:
    sealed = KeyRing("tests", OLD).seal(TEXT)
    rotated = KeyRing("tests", NEW, [OLD])
    assert rotated.unseal(sealed) == TEXT
    assert KeyRing("tests", NEW).unseal(sealed) is None
    assert KeyRing("tests", NEW).unseal(rotated.seal(TEXT)) == TEXT
    assert KeyRing("tests", OLD).unseal(rotated.seal(TEXT)) is None


def test_text_sealed_for_another_purpose_is_not_unsealed() -> None:
    assert KeyRing("tests", OLD).unseal(KeyRing("others", OLD).seal(TEXT)) is None


@pytest.mark.parametrize("position", [0, 20, -2])
def test_changed_text_is_not_unsealed(position: int) -> None:
    ring = KeyRing("tests", OLD)
    sealed = list(ring.seal(TEXT))
    sealed[position] = "A" if sealed[position] != "A" else "B"
    assert ring.unseal("".join(sealed)) is None


@pytest.mark.parametrize("changed", ["", ".", "x", "{id}", "{id}.", "{id}.x", "{id}.\N{SNOWMAN}", "{other}.{rest}"])
def test_malformed_text_is_not_unsealed(changed: str) -> None:
    ring, other = KeyRing("tests", OLD, [NEW]), KeyRing("tests", NEW)
    key_id, _, rest = ring.seal(TEXT).partition(".")
    text = changed.format(id=key_id, rest=rest, other=other.seal(TEXT).partition(".")[0])
    assert ring.unseal(text) is None
