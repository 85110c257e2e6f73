"""What the examples' options take: a mistake is told by the parser, before the work that it would spoil."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path


def at_least(smallest: int) -> Callable[[str], int]:
    """A whole number of ``smallest`` or more."""

    def count(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if number < smallest:
            raise argparse.ArgumentTypeError(f"{number} is too few: {smallest} or more")
        return number

    return count


def finite(text: str) -> float:
    """A number, which infinity is not."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return number


def picture(text: str) -> Path:
    """A file to draw to, whose folder is there."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write {text}: it is a folder")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write {text}: there is no folder {path.parent}")
    return path
