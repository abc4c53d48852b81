"""The customer's web pages and their JSON; everything in them comes from the orchestrator, asked as the user."""
