"""Work with many runs: name, tag, list, compare, delete and export them."""
