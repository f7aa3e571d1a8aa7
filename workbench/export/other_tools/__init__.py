"""Converts recipes to the configurations of other fine-tuning tools and back."""
