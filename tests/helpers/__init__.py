"""What tests share: customers to act as, the clouds' own truth, and assertions with words."""
