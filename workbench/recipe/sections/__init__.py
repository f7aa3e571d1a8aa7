"""The sections of the recipe, a module each; :mod:`workbench.recipe.schema` puts them together."""
