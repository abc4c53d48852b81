"""Shared parts of every service: application, authentication, problem details, logging, metrics, settings."""
