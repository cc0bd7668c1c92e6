"""What a function can be called with."""

import inspect
from typing import Any


def accepts(function: Any, argument: str) -> bool:
    """Whether ``function`` has an argument of this name."""
    try:
        return argument in inspect.signature(function).parameters
    except (TypeError, ValueError):  # something without a signature
        return False
