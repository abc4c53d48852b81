"""Wire shapes (pydantic)."""
