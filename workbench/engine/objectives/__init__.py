"""What a run minimizes beside the supervised loss: pairs of responses in batches, and the losses on them."""
