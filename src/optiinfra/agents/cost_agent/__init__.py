"""The cost agent: finds what the same serving could cost less for."""
