"""Checks the Hugging Face hub: its token, and whether it answers."""

from workbench.machine.hub import endpoint, is_offline, token_place
from workbench.models.hub import unreachable_reason
from workbench.planning.doctor.check import Check

_PROBE_HUB_SECONDS = 3.0


def token() -> Check:
    if place := token_place():
        return Check("Hub token", "ok", f"present in {place}")
    return Check(
        "Hub token",
        "warning",
        "none",
        "Gated and private models (Llama, Gemma, …) cannot be downloaded; all others can.",
        "Run `hf auth login`, or set HF_TOKEN before the engine starts.",
    )


def hub() -> Check:
    reason = unreachable_reason(_PROBE_HUB_SECONDS)
    if reason is None:
        return Check("Hub", "ok", f"{endpoint()} answers")
    return Check(
        "Hub",
        "warning",
        f"{endpoint()} is not used: {reason}" if is_offline() else f"{endpoint()} cannot be reached: {reason}",
        "Only models on this machine can be used; the default model is still available from the package index.",
        "Unset HF_HUB_OFFLINE."
        if is_offline()
        else "Check network and proxy (HTTPS_PROXY), or set HF_ENDPOINT to a mirror; folders and GGUF files work.",
    )
