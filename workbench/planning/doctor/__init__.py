"""``loraworkbench doctor``: what this machine lacks for fine-tuning."""
