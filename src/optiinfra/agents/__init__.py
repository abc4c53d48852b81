"""The four agents, and what they share. They read the stores and write to none."""
