"""Frames of what has changed alone show, to the byte, what Textual's would; they leave out moves to where nothing is
written.
"""

import re

from textual._compositor import Compositor

from screens.app import WorkbenchApp
from screens.widgets.sparse_compositor import SparseCompositor
from workbench.storage.paths import Home

_IDLE_MOVE = re.compile(r"\x1b\[\d+;\d+H(?=\n*(?:\x1b\[\d+;\d+H|$))")


async def test_a_sparse_frame_is_the_whole_one(tmp_path, monkeypatch):
    sparse, frames, asked = SparseCompositor.render_partial_update, [], {"whole": 0, "sparse": 0}

    def counted(compositor, way, name):
        renders = compositor._get_renders

        def all_of(crop=None):
            for rendered in renders(crop):
                asked[name] += 1
                yield rendered

        compositor._get_renders = all_of
        try:
            return way(compositor)
        finally:
            del compositor._get_renders

    def both(compositor):
        dirty = set(compositor._dirty_regions)
        whole = counted(compositor, Compositor.render_partial_update, "whole")
        compositor._dirty_regions |= dirty
        update = counted(compositor, sparse, "sparse")
        frames.append([frame and frame.render_segments(app.console) for frame in (whole, update)])
        return update

    monkeypatch.setattr(SparseCompositor, "render_partial_update", both)
    app = WorkbenchApp(Home(tmp_path))
    app.sample_hardware = app.follow_steps = False
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        for key in ("3", "right", "right", "down", "right", "2", "down", "down", "4", "right", "3", "left"):
            await pilot.press(key)
            await pilot.pause(0.1)
    assert len([frame for frame in frames if frame[0]]) > 10
    for whole, update in frames:
        assert len(update or "") <= len(whole or "")
        assert _IDLE_MOVE.sub("", update or "") == _IDLE_MOVE.sub("", whole or "")
    # Opening a tab is a frame of everything, so the share is far smaller for a key on a form.
    assert asked["sparse"] < 0.5 * asked["whole"]
