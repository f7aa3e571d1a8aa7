"""The trainers of a run: TRL's, with clocks, complete checkpoints and smaller micro-batches, one class on the other."""
