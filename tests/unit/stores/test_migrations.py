"""The revisions of the schema."""

from alembic.config import Config
from alembic.script import ScriptDirectory

from optiinfra.stores.postgres import database


def test_revisions_are_one_line_in_the_order_of_their_numbers() -> None:
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    scripts = [(one.revision, one.down_revision) for one in ScriptDirectory.from_config(config).walk_revisions()]
    numbers = [f"{number:04}" for number in range(1, len(scripts) + 1)]
    assert sorted(scripts) == list(zip(numbers, [None, *numbers], strict=False))
    files = sorted(file.name[:4] for file in database.MIGRATIONS.glob("versions/*.py"))
    assert files == numbers
