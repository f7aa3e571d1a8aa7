"""Names the images, videos and audio that records hold: only text is trained, and none is left out in silence."""

from collections.abc import Iterable, Mapping

from workbench.data.records.unused import UnusedField

_KINDS = ("image", "video", "audio")
_NAMES = {"image": "an image", "video": "a video", "audio": "audio"}
_END = ", and only text is trained"


def is_media_part(part: object) -> bool:
    """Whether a part of a turn's content is an image, a video or audio, in any of the usual spellings."""
    return isinstance(part, Mapping) and bool(_kind_of(part))


def media_problem(part: Mapping[str, object]) -> str:
    """Why a record with such a part is skipped; the same for all of a kind, so that they are counted together.

    Empty for other parts.
    """
    kind = _kind_of(part)
    return f"holds {_NAMES[kind]}{_END}" if kind else ""


def _kind_of(part: Mapping[str, object]) -> str:
    """``image`` for ``{"type": "image_url", …}`` and for ``{"image": "a.png"}``."""
    if "type" in part:
        return next((kind for kind in _KINDS if kind in str(part["type"]).lower()), "")
    return next((kind for kind in _KINDS if kind in part or f"{kind}_url" in part), "")


def is_media_column(path: str) -> bool:
    """Whether a column has the name under which datasets have images, videos or audio."""
    name = path.strip().lower()
    return name in _KINDS or name in ("images", "videos", "audios")


def media_question(skipped_reasons: Mapping[str, int], unused: Iterable[UnusedField]) -> str:
    """Says how many records hold images or the like, what becomes of them, and what to do; empty if none does.

    Args:
        skipped_reasons: skipped records by reason.
        unused: the fields that are not fed.
    """
    sentences = []
    if skipped := {reason: count for reason, count in skipped_reasons.items() if reason.endswith(_END)}:
        what = ", ".join(reason.removesuffix(_END).removeprefix("holds ") for reason in skipped)
        sentences.append(
            f"{_records(sum(skipped.values()))} with {what} in a turn: skipped, as only text is trained. Remove these "
            "parts from the turns to train on their text."
        )
    columns = [field for field in unused if field.asks and is_media_column(field.path)]
    if columns:
        listed = ", ".join(f"{field.path} ({_records(field.records)})" for field in columns)
        names = ", ".join(field.path for field in columns)
        sentences.append(
            f"Columns with images, videos or audio: {listed}. Only the text of these records is trained. "
            f"If that is meant, list them in data.ignore: [{names}]."
        )
    return " ".join(sentences)


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count:,} records"
