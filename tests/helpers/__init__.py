"""Shared by tests: customers, the actual state of clouds and stores, fault injection, assertions."""
