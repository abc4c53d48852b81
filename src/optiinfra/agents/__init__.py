"""The four agents, and the code that they share. They read from the stores and write to none."""
