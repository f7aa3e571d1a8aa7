"""Chat templates: where they come from, what they can write, and a conversation as pieces and tokens."""
