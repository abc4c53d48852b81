"""The cost agent: finds ways to serve the same traffic at lower cost."""
