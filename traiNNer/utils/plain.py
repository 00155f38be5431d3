"""States reduced to what a file may hold that is read without running code in it."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

_SCALARS = (bool, int, float, str, type(None))


def plain(value: Any, where: str) -> Any:
    """A copy of a state that holds dicts, lists, tuples, numbers, strings, None and CPU tensors only.

    Subclasses of dict become dicts. Tensors are detached and keep their strides; one that is a piece of a larger
    storage is copied out of it. On the CPU the others share memory with `value`.

    Args:
        value: the state.
        where: name of its owner, for the message.

    Raises:
        TypeError: something else is in it. That is a fault of the program, not of its user.
    """
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Tensor):
        return _plain_tensor(value, where)
    if isinstance(value, dict):
        return _plain_dict(cast("dict[Any, Any]", value), where)
    if type(value) in (list, tuple):
        return type(value)(plain(item, f"{where}[{index}]") for index, item in enumerate(value))
    raise TypeError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}; a state holds only dicts, lists, tuples, "
        "numbers, strings, None and tensors"
    )


def _plain_dict(values: dict[Any, Any], where: str) -> dict[Any, Any]:
    for key in values:
        if type(key) not in (int, str):
            raise TypeError(f"{where} has the key {key!r}; the keys of a state are strings or integers")
    return {key: plain(value, f"{where}[{key!r}]") for key, value in values.items()}


def _plain_tensor(tensor: Tensor, where: str) -> Tensor:
    tensor = tensor.detach()
    if type(tensor) is not Tensor:
        raise TypeError(f"{where} is a {type(tensor).__qualname__}; a state holds plain tensors only")
    tensor = tensor.cpu()  # host-device synchronization: a save waits for the device
    if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size():
        tensor = tensor.clone()
    return tensor
