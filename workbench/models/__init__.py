"""Models: where they come from (catalog, hub, folder, GGUF file), and their module trees."""
