"""Fixtures live in files of their own, by concept; this names them."""

pytest_plugins = ["pytester", "tests.helpers.customers", "tests.helpers.private_platform"]
