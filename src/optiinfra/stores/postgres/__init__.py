"""PostgreSQL: the source of truth. Models, migrations, sessions."""
