"""What is seen in the terminal. Textual only: the libraries that compute stay in the engine's process."""
