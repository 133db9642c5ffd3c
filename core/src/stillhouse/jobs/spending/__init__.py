"""What a run may spend: bounds, prices, ceilings."""
