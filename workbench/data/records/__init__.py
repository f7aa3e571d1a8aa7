"""How one record becomes a conversation or plain text, and which of its fields that leaves unused."""
