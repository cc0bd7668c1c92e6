"""What was stored earlier, checked against a schema once, when it is read."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


class DamagedError(ValueError):
    """A stored file or a part of one is not what it should be. The message is one line that says what is wrong."""


def read(schema: TypeAdapter[T], path: Path) -> T:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is no file, cannot be read, is no JSON or does not fit the schema.
    """
    try:
        content = path.read_bytes()
    except NotADirectoryError as error:
        raise FileNotFoundError(path) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedError(error.strerror or str(error)) from error
    return parse(schema, content)


def parse(schema: TypeAdapter[T], text: str | bytes) -> T:
    """What a JSON text says. Types are not converted: ``"1"`` is no number, and ``true`` is not 1.

    Raises:
        DamagedError: it is no JSON, is nested too deep, or does not fit the schema.
    """
    try:
        return schema.validate_json(text, strict=True)
    except ValidationError as error:
        raise DamagedError(_first_fault(error)) from error


def check(schema: TypeAdapter[T], value: Any) -> T:
    """The same for what is no text any more, such as a part of a larger file."""
    try:
        return schema.validate_python(value, strict=True)
    except ValidationError as error:
        raise DamagedError(_first_fault(error)) from error


def _first_fault(error: ValidationError) -> str:
    """``stages.attack: input should be a valid number``, and how many faults there are besides."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(map(str, first["loc"]))
    reason = first["msg"].removeprefix("Value error, ")
    others = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{path}: {reason}{others}" if path else reason + others
