"""How a site sells beside its list prices: incentives, and what a sale under them is."""
