"""What to buy, what to rewire, where to put the layers: decisions that stand on the simulator."""
