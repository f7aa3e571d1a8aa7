"""The section ``output``: the name of a run, and its place."""

from workbench.recipe.sections.section import Section, setting


class OutputSection(Section):
    name: str = setting("run", "Run name; a number is appended.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    dir: str | None = setting(None, "Parent folder of the run folder. Empty: the default runs folder.")
