"""buy: what to spend money on, and what a token costs."""
