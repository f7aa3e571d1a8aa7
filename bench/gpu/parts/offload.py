"""Checkpoints in host memory against checkpoints on the device, and none: the same losses and adapter, less memory."""

from bench.gpu.part import Work
from bench.gpu.parts.runs import largest_difference, trained

KEY = "training.gradient_checkpointing"


def measure(work: Work) -> None:
    length = {} if work.toy else {"data.max_length": 4096, "data.packing": True}
    found = {}
    for name, value in (("none", False), ("on the device", True), ("in host memory", "offload")):
        found[name] = done = trained(work, {KEY: value, **length})
        work.note(**{name: {**done.told, "adapter": done.digest}})
    on_device, on_host = found["on the device"], found["in host memory"]
    losses = (on_device.losses, on_host.losses)
    work.check("the same first loss", losses[0][0] == losses[1][0], losses)
    if work.device == "cpu":
        work.check("the same losses and adapter", losses[0] == losses[1] and on_device.digest == on_host.digest, losses)
    else:
        # Attention's gradient is added up in another order each time.
        work.check("the same losses to rounding", largest_difference(*losses) < 0.01, losses)
        work.note(same_adapter=on_device.digest == on_host.digest)
        ours, theirs = on_host.measured["allocated"], on_device.measured["allocated"]
        work.check("less memory", ours < theirs, (ours, theirs))
    work.verdict()
