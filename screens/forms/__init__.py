"""Forms over the recipe: what Adapter and Data share."""
