"""Wire shapes (pydantic) and the typed clients made of them."""
