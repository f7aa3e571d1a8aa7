"""Predicts the peak memory of a training step by tracing one on tensors without data.

:mod:`.run` traces the allocations of a step on torch's meta device in a separate process, with sizes as products of
powers of batch, length and rank; :mod:`.timeline` stores the result and evaluates it for any batch, length and rank
without torch; :mod:`.store` stores timelines on disk.
"""
