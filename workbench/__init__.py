"""The core of loraworkbench: everything except the screens. It does not import Textual."""

__version__ = "0.1.0"
