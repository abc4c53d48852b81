"""PostgreSQL: the truth. Models, migrations, sessions."""
