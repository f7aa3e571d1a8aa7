"""Whether a run fits is told before it starts: what is free, what is needed, and what would fit."""

from pathlib import Path

from workbench.data.facts import DataFacts, Lengths
from workbench.engine.client.protocol import DeviceFacts, EngineStatus, LoadedModel
from workbench.errors import WorkbenchError
from workbench.estimate import Device
from workbench.machine.gpu import GpuSample, HostSample
from workbench.models.catalog import catalog_skeleton
from workbench.planning.launch import Launch
from workbench.planning.start_checks import Room, foresee, judge, room_for
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

GIB = 2**30
GPU = GpuSample(0, "NVIDIA L4", 24 * GIB, 4 * GIB, 20 * GIB, compute_capability=(8, 9))
HOST = HostSample(10.0, 64 * GIB, 24 * GIB, 40 * GIB)
LLAMA = "meta-llama/Llama-2-7b-hf"
LARGE = edit(Recipe(), {"model.source": LLAMA, "data.max_length": 4096, "training.per_device_train_batch_size": 16})


def status(kind: str, **fields: object) -> EngineStatus:
    device = DeviceFacts(kind=kind, name="x", total_bytes=64 * GIB)  # type: ignore[arg-type]
    return EngineStatus(pid=1, version="0", started=0.0, device=device, **fields)  # type: ignore[arg-type]


def room(free: int) -> Room:
    return Room("GPU 0", free, Device("cuda", bfloat16=True))


def test_the_room_is_that_of_the_gpu_with_what_the_engine_gives_back() -> None:
    assert room_for([GPU], HOST) == Room("GPU 0 (NVIDIA L4)", 20 * GIB, Device("cuda", bfloat16=True))
    held = room_for([GPU], HOST, status("cuda", reserved=3 * GIB))
    assert held is not None
    assert held.free_bytes == 23 * GIB
    more_than_there_is = room_for([GPU], HOST, status("cuda", reserved=9 * GIB))
    assert more_than_there_is is not None
    assert more_than_there_is.free_bytes == 24 * GIB


def test_without_a_gpu_that_the_engine_can_use_it_is_the_hosts() -> None:
    for gpus, engine in (([], None), ([GPU], status("cpu"))):
        found = room_for(gpus, HOST, engine)
        assert found is not None
        assert (found.free_bytes, found.device.kind) == (40 * GIB, "cpu")
    model = LoadedModel(source="m", method="nf4", bytes=2 * GIB)
    loaded = room_for([], HOST, status("cpu", model=model))
    assert loaded is not None
    assert loaded.free_bytes == 42 * GIB


def gpu(index: int, free: int | None, total: int = 24) -> GpuSample:
    return GpuSample(index, "L4", total * GIB, None, None if free is None else free * GIB)


def free_of(*gpus: GpuSample, launch: Launch, reserved: int = 0) -> tuple[str, float] | None:
    found = room_for(gpus, HOST, status("cuda", reserved=reserved * GIB), launch)
    return found and (found.place, found.free_bytes / GIB)


def test_the_fullest_of_the_gpus_that_are_taken_decides() -> None:
    gpus = (gpu(0, 2), gpu(1, 9), gpu(3, 20), gpu(4, None))
    assert free_of(*gpus, launch=Launch.on([3])) == ("GPU 3 (L4)", 20)
    assert free_of(*gpus, launch=Launch.on([3, 1])) == ("GPU 1 (L4), the fullest of 2 GPUs", 9)
    # Without numbers the first ones are taken.
    assert free_of(*gpus, launch=Launch(processes=2)) == ("GPU 0 (L4), the fullest of 2 GPUs", 2)
    # One that does not tell its memory does not keep the others from deciding.
    assert free_of(*gpus, launch=Launch.on([3, 4])) == ("GPU 3 (L4), the fullest of 2 GPUs", 20)
    assert free_of(*gpus, launch=Launch.on([4])) is None
    # What the engine holds lies on the first one.
    assert free_of(*gpus, launch=Launch.on([0, 1]), reserved=8) == ("GPU 1 (L4), the fullest of 2 GPUs", 9)
    assert free_of(*gpus, launch=Launch.on([1, 3]), reserved=8) == ("GPU 1 (L4), the fullest of 2 GPUs", 9)


def test_processes_without_a_gpu_share_the_hosts_memory() -> None:
    found = room_for([], HOST, status("cpu"), Launch(processes=4))
    assert found is not None
    assert (found.place, found.free_bytes) == ("this machine for each of 4 processes (CPU training)", 10 * GIB)


def test_what_a_base_that_is_spread_needs_is_not_guessed(tmp_path: Path) -> None:
    skeleton = catalog_skeleton(LLAMA)
    assert skeleton is not None
    wide = edit(LARGE, {"quantization.method": "none"})
    small = (gpu(0, 12, 12), gpu(1, 12, 12))
    alone, both = (room_for(small, HOST, None, launch) for launch in (Launch.on([1]), Launch.on([0, 1])))
    assert alone is not None
    assert both is not None
    # 13.5 GB of weights: one GPU of 12 GiB cannot, two hold a half each.
    assert not getattr(judge(skeleton, wide, alone), "may_start", True)
    assert judge(skeleton, wide, both) is None
    # In 4 bits each holds all of it.
    assert judge(skeleton, edit(wide, {"quantization.method": "nf4"}), both) is not None
    file = tmp_path / "own.yaml"
    for kind, known in {"DEEPSPEED": False, "FSDP": False, "MULTI_GPU": True}.items():
        file.write_text(f"distributed_type: {kind}\n")
        launch = Launch(processes=2, config_file=str(file))
        assert (room_for(small, HOST, None, launch) is not None) == known


def test_what_is_not_known_is_no_room() -> None:
    assert room_for([GpuSample(0, "Orin")], HOST) is None
    assert room_for([], None) is None


def test_a_misfit_names_both_figures_and_what_would_fit() -> None:
    skeleton = catalog_skeleton(LLAMA)
    assert skeleton is not None
    verdict = judge(skeleton, LARGE, room(20 * GIB))
    assert verdict is not None
    assert not verdict.may_start
    assert f"{verdict.needed_bytes / GIB:.2f} GiB (records of 4096 tokens); 20.00 GiB free on GPU 0." in (
        verdict.sentence
    )
    cheapest = verdict.suggestions[0]
    assert cheapest.peak_bytes < 20 * GIB
    changed = judge(skeleton, edit(LARGE, cheapest.changes), room(20 * GIB))
    assert changed is not None
    assert changed.may_start
    assert changed.needed_bytes == cheapest.peak_bytes


def test_what_fits_is_asked_no_further() -> None:
    skeleton = catalog_skeleton(LLAMA)
    assert skeleton is not None
    verdict = judge(skeleton, LARGE, room(2000 * GIB))
    assert verdict is not None
    assert verdict.may_start
    assert verdict.suggestions == ()


def test_the_processor_needs_neither_context_nor_reserve() -> None:
    skeleton = catalog_skeleton(LLAMA)
    assert skeleton is not None
    there = judge(skeleton, LARGE, Room("GPU 0", GIB, Device("cuda", bfloat16=True)))
    here = judge(skeleton, LARGE, Room("this machine", GIB, Device("cpu", bfloat16=True)))
    assert there is not None
    assert here is not None
    assert here.needed_bytes < there.needed_bytes


class Told:
    """An engine that knows a model's tree and the lengths of its records, or neither."""

    def __init__(self, longest: int | None, *, has_tree: bool = True) -> None:
        self.longest = longest
        self.has_tree = has_tree

    async def tree(self, model):
        if not self.has_tree:
            raise WorkbenchError("There is no such model.")
        return catalog_skeleton(model.source)

    async def facts(self, recipe, *, fetch=False, show=3):
        if self.longest is None:
            raise WorkbenchError("The tokenizer is elsewhere.")
        yield DataFacts("chat", "", "model", 4096, lengths=Lengths(max=7), exact=False)
        yield DataFacts("chat", "", "model", 4096, lengths=Lengths(max=self.longest))


async def test_short_records_are_priced_as_they_are() -> None:
    for told, length, starts in ((Told(60), 60, True), (Told(9000), 4096, False), (Told(None), 4096, False)):
        verdict = await foresee(told, LARGE, room(20 * GIB))
        assert verdict is not None
        assert (verdict.length, verdict.may_start) == (length, starts)


async def test_packed_records_fill_the_whole_length() -> None:
    verdict = await foresee(Told(60), edit(LARGE, {"data.packing": True}), room(20 * GIB))
    assert verdict is not None
    assert (verdict.length, verdict.may_start) == (4096, False)


async def test_without_a_tree_there_is_no_verdict() -> None:
    assert await foresee(Told(60, has_tree=False), LARGE, room(GIB)) is None
