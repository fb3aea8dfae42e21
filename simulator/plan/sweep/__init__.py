"""sweep: one scenario with many values in it, and which input moves the answer most."""
