"""The value of ``data.source``: text, or a list of sources to interleave."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, model_serializer, model_validator

from workbench.recipe.sections.section import Section

FormatKind = Literal["instruction", "prompt", "question", "messages", "sharegpt", "segments", "text"]
"""The formats of records; :mod:`workbench.data.records.detect` recognizes them."""
DataFormat = Literal["auto", FormatKind]


class SourceEntry(Section):
    """One source in the list form of ``data.source``. What it leaves out is taken from the data section."""

    source: str = Field(min_length=1)
    weight: float = Field(1.0, gt=0, le=1000)
    split: str | None = Field(None, min_length=1)
    columns: dict[str, str] | None = None
    format: DataFormat | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_only(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _without_empty_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        fields: dict[str, object] = handler(self)
        return {name: value for name, value in fields.items() if value is not None}


def _form_of_source(value: object) -> str:
    return "list" if isinstance(value, list | tuple) else "text"


DataSource = Annotated[
    Annotated[str, Field(min_length=1), Tag("text")] | Annotated[list[SourceEntry], Field(min_length=1), Tag("list")],
    Discriminator(_form_of_source),
]
"""``data.source``: text, or a list of sources to interleave; see :mod:`workbench.recipe.data_sources`."""
