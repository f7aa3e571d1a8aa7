"""The peak of a training step by following one: every storage from birth to death, on tensors without data.

:mod:`.run` follows a step on torch's meta device, in a process of its own, with sizes that are products of powers of
batch, length and rank; :mod:`.timeline` holds what came out and prices any batch, length and rank from it without
torch; :mod:`.store` keeps timelines on disk.
"""
