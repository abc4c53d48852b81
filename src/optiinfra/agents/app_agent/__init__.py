"""The application agent: holds changes to the quality of answers."""
