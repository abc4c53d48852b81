"""Golden prompts: the quality baseline before a change, and the answers by which a change is judged."""
