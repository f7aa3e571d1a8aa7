"""The core of loraworkbench: everything but the screens. Nothing in here imports Textual."""

__version__ = "0.1.0"
