"""Which linears of which layers an adapter goes to."""

import re

from errors import UserError

# By the beginning of a linear's name in its layer. With SwiGLU interm_dense is two linears, gate
# and value.
TARGETS = {
    "qk": ("self_attention.query", "self_attention.key"),
    "qv": ("self_attention.query", "self_attention.value"),
    "qkv": ("self_attention.query", "self_attention.key", "self_attention.value"),
    "all": ("self_attention", "attention_dense", "interm_dense", "out_dense"),
}


def choose_layers(layers: str, count: int, flag: str) -> list[int]:
    """Layer numbers, from 0, of an encoder with `count` layers.

    `layers` is "all", "first4", "middle4", "last4" (all of four or fewer) or a list as "0,2,5".
    Raises UserError, which names `flag`, the adapter's option, for anything else.
    """
    begins = {"first4": 0, "middle4": max(0, (count - 4) // 2), "last4": max(0, count - 4)}
    everything = list(range(count))
    if layers == "all":
        return everything
    if layers in begins:
        return everything[begins[layers] :][:4]
    if not re.fullmatch(r"[0-9]{1,9}( *, *[0-9]{1,9})*", layers):
        raise UserError(
            f'{flag} "{layers}": expected all, first4, middle4, last4 or numbers such as 0,2,5'
        )
    numbers = [int(number) for number in layers.split(",")]
    if max(numbers) >= count or len(set(numbers)) < len(numbers):
        raise UserError(
            f'{flag} "{layers}": expected different numbers, each from 0 to {count - 1}'
        )
    return sorted(numbers)
