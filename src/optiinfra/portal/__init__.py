"""The customer's web pages and their JSON, with data from the orchestrator's API as the signed-in user."""
