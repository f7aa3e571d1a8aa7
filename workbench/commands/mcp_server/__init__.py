"""The tools that ``loraworkbench mcp`` offers to a client of the Model Context Protocol."""
