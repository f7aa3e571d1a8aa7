"""The hardware as it is now."""
