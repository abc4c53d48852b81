"""Golden prompts: the quality baseline before a change, and the answers that a change is judged by."""
