"""The spending of a run: bounds, prices, budget."""
