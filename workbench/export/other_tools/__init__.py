"""Recipes as other tools' configurations, and back."""
