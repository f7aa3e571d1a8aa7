"""Text from outside, made safe to show, and as Textual content that holds no markup."""

from textual.content import Content

from workbench.plain_text import plain

__all__ = ["plain", "plain_content"]


def plain_content(text: object, style: str = "", *, lines: bool = False) -> Content:
    """Safe text as Textual content in one style; square brackets in it are just brackets."""
    return Content.styled(plain(text, lines=lines), style)
