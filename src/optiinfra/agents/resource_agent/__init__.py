"""The resource agent: watches how much of what is paid for is used."""
