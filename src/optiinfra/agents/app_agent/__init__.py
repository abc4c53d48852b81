"""The application agent: checks that changes keep the quality of answers."""
