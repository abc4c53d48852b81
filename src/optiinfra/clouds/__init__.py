"""Clouds: what the platform does in them, and what they charge."""
