"""What is seen in the terminal. Textual only: the libraries that compute stay in the engine's process."""

import os

# Textual paints on a beat, 60 a second by default, and a key that just missed one waits for up to two: 33 ms. Where
# nothing changed, nothing is painted.
os.environ.setdefault("TEXTUAL_FPS", "240")
