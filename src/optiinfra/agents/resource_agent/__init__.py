"""The resource agent: reports how much of the paid capacity is used."""
