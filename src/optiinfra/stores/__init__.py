"""Connections to the stores, and what is kept in each."""
