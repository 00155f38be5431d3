"""Images in pieces of almost the same size."""

from __future__ import annotations


def balanced(images: int, largest: int) -> list[int]:
    """Sizes of as few pieces as hold `images` with at most `largest` in each; they differ by one at most."""
    count = -(-images // largest)
    each, more = divmod(images, count)
    return [each + 1] * more + [each] * (count - more)
