"""The engine as a terminal sees it: the protocol, a client, the life of its process."""
