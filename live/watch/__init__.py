"""What a running cluster shows from outside, once a second at most, and without asking it to do anything."""
