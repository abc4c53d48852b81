"""The process on the customer's side: connects outward, discovers, scrapes metrics and executes commands."""
