"""The keys of the tab Chat."""

from __future__ import annotations

from typing import Final

from textual.binding import Binding, BindingType

KEYS: Final[list[BindingType]] = [
    Binding("enter", "write", "Write", id="chat.write", tooltip="Open the prompt; Enter sends it"),
    Binding("escape", "stop", "Stop reply", id="chat.stop", tooltip="Stop the reply being generated"),
    Binding("o", "beside", "Compare", id="chat.beside",
            tooltip="Show base and tuned side by side, or one again"),
    Binding("b", "switch", "Base/tuned", id="chat.switch", tooltip="Switch the adapter off or on"),
    Binding("c", "pick", "Chat with", id="chat.pick",
            tooltip="Choose the run, checkpoint or base model to chat with"),
    Binding("comma", "settings", "Settings", key_display=",", id="chat.settings",
            tooltip="Set system prompt and sampling"),
    Binding("h", "conversations", "Chats", id="chat.list", tooltip="List conversations: open, rename, remove"),
    Binding("u", "edit", "Edit", id="chat.edit", tooltip="Edit your last question and send it again"),
    Binding("R", "again", "Regenerate", key_display="R", id="chat.again", tooltip="Regenerate the last reply"),
    Binding("z", "reasoning", "Fold reasoning", id="chat.reasoning",
            tooltip="Unfold or fold the reasoning of replies"),
    Binding("ctrl+n", "clear", "New", id="chat.clear", tooltip="Start a new conversation; this one is saved"),
    Binding("y", "copy", "Copy", id="chat.copy", tooltip="Copy the last reply to the clipboard"),
    Binding("C", "copy_all", "Copy all", show=False, id="chat.copy_all", tooltip="Copy the conversation"),
    Binding("vertical_line", "columns", "Columns", key_display="|", show=False, id="chat.columns",
            tooltip="Choose what to compare side by side"),
    Binding("B", "blind", "Blind", key_display="B", show=False, id="chat.blind",
            tooltip="Hide which of two models is which until you rate their replies"),
    # Before the key of the scale, which "=" is as well.
    Binding("less_than_sign", "rate('left')", "Left", id="chat.left", tooltip="The left reply is better"),
    Binding("equals_sign", "rate('even')", "Even", id="chat.even", tooltip="Neither reply is better"),
    Binding("greater_than_sign", "rate('right')", "Right", id="chat.right", tooltip="The right reply is better"),
    Binding("n", "cycle(1)", "Next", show=False, id="chat.next", tooltip="Next adapter on the same base"),
    Binding("p", "cycle(-1)", "Previous", show=False, id="chat.previous",
            tooltip="Previous adapter on the same base"),
    Binding("plus,equals_sign", "scale(1)", "More", show=False, id="chat.more",
            tooltip="Increase the adapter scale (up to 2)"),
    Binding("minus", "scale(-1)", "Less", show=False, id="chat.less",
            tooltip="Decrease the adapter scale (down to 0)"),
    Binding("ampersand", "combine", "Combine", key_display="&", show=False, id="chat.combine",
            tooltip="Combine adapters, each with a weight"),
    Binding("A", "serve", "Serve", key_display="A", show=False, id="chat.serve",
            tooltip="Serve this model and its base over an OpenAI-compatible API"),
    Binding("D", "greedy", "Greedy", key_display="D", show=False, id="chat.greedy",
            tooltip="Greedy decoding on or off"),
]  # fmt: skip
