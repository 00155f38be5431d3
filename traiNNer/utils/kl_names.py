"""Names that command lines have for the options of `klloss`, as an entry of `train.losses` calls them."""

from __future__ import annotations

from collections.abc import Collection

from traiNNer.utils.registry import LOSSES

KL_TYPE = "klloss"

KL_NAMES = {"kl_beta": "target_weight", "kl_warmup_steps": "target_iter", "kl_free_bits": "free_bits"}
"""Name to key of the entry."""

_DEFAULTS = {"loss_weight": 0.0, "target_weight": 1e-4, "target_iter": 5000}
_OWN_WEIGHT = {"loss_weight", "knots"}


def is_kl(name: object) -> bool:
    """Whether a `type` names the loss; nothing is imported for it."""
    return isinstance(name, str) and LOSSES.normalize(name) == LOSSES.normalize(KL_TYPE)


def kl_defaults(written: Collection[str]) -> dict[str, float]:
    """The keys that an entry with these keys leaves to the defaults of such a command line.

    None without any of its names; none either where `kl_free_bits` stands beside a weight in the entry's own words.
    """
    names = KL_NAMES.keys() & set(written)
    if not names or (names == {"kl_free_bits"} and _OWN_WEIGHT & set(written)):
        return {}
    there = {KL_NAMES.get(name, name) for name in written}
    return {name: value for name, value in _DEFAULTS.items() if name not in there}
