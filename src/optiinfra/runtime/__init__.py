"""The small process on the customer's side: it connects outward, discovers, scrapes and obeys."""
