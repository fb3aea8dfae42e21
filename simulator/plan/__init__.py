"""Questions asked of predictions: where to put layers, what to buy, what moves the answer, who is served."""
