"""What all adapters have in common: one record each, and what is saved of an adapted model.

An adapter changes a finished encoder from outside: it wraps modules, fills the slots that bert.py
leaves empty, or freezes parts. The encoder does not know of it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from bert import BertModel
from errors import UserError, listed
from options import Options
from tasks import Task


@dataclass(frozen=True)
class PeftForm:
    """An adapter as the library PEFT saves it: what its two files hold."""

    config: dict[str, Any]  # adapter_config.json, but for the base model's name
    names: dict[str, str]  # of the encoder's tensors: our name -> that in adapter_model.safetensors
    # Of those that have another shape there, as view() takes it, by our name.
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Adaptable(nn.Module):
    """What an adapter gets: a MultitaskBERT that was just built, still on the CPU.

    `embedding_terms` take modules that turn packed rows into a summand of the embeddings [N, H].
    `virtual_tokens` are put behind each sequence's [CLS]: such a term gives them their embeddings,
    by the feature "virtual" (packing.with_virtual), and poolings do not see them.
    `mixture`, an empty slot, one that runs several encoders in the place of `bert`, called as
    `mixture(packed, dtype, wanted, embeddings)` with what BertModel.encode_packed() takes. It gives
    the states that encode_packed() gives, and how much each encoder had of each sequence
    [all S, encoders].
    """

    bert: BertModel  # the encoder, its pretrained weights loaded
    tasks: dict[str, Task]
    pipelines: nn.ModuleDict  # {task: what follows the encoder}
    embedding_terms: nn.ModuleDict
    virtual_tokens: int  # 0 as the model is built
    mixture: nn.Module | None


@dataclass(frozen=True)
class Adapter:
    """One kind of adapter; ADAPTERS in adapters/kinds.py lists them.

    prefix: the name of the option that asks for it, with any value but its default. Its other
        options begin with this name and "_". If it has an option PREFIX_merge, that asks for
        merge() at the end of a run; PREFIX_dropout, PREFIX_merge and PREFIX_train, which says what
        trains beside it, are not compared when another run starts from it (--init).
    value: where that option names several adapters, the value that asks for this one; "": any.
    adapt: changes the model in place, once its pretrained weights are loaded, and is called again
        whenever a saved model is loaded. What it leaves trainable trains. A pretrained weight that
        it freezes as it was read is not saved; all else is (see rebuilt()). In bf16 and fp16 the
        tensors of an nn.Linear are cast while a layer runs (casting.cast_linears), so a wrapper
        finds its `base.weight` rounded; parameters of its own are fp32, and it casts them to
        x.dtype. One that needs the fp32 weight, as DoRA for its norms, holds it in a list, where no
        module is looked for: `self.master = [base.weight]`. Linears that it wraps stay in the
        wrapper as `base`; a layer of which each task has its own stands in a ModuleDict `by_task`,
        whose first one is the encoder's in a saved model's files (see plain_names()).
    merge: folds it into plain weights, in place, so that the model computes the same without it.
        One that only trains weights which BERT has itself gives a function that does nothing. None:
        there is no such form, and an export holds the adapter beside the encoder.
    combines: whether it may stand beside other adapters; two that don't are refused. They are
        applied in the order of ADAPTERS, where one that freezes the encoder stands before those
        that add to it, and one that trains some of its own weights behind both; and merged in the
        reverse order.
    rate_factor: its usual learning rate, as a multiple of full fine-tuning's. One that depends on
        its options overrides rate().
    counts: what of a model it adapted, in a line for the console; None: nothing is said.
    in_peft: how the library PEFT saves it, made from the adapted encoder; None: PEFT has no such
        adapter. Then its weights are in heads.safetensors.
    """

    prefix: str
    adapt: Callable[[Adaptable, Options], None]
    merge: Callable[[Adaptable], None] | None = None
    combines: bool = False
    rate_factor: float = 1.0
    counts: Callable[[Adaptable], str] | None = None
    in_peft: Callable[[BertModel, Options], PeftForm] | None = None
    value: str = ""

    @property
    def flag(self) -> str:
        """The flag that asks for it."""
        return f"--{self.prefix}"

    def wanted(self, options: Options) -> bool:
        """Whether the options ask for it."""
        given = getattr(options, self.prefix)
        return given == self.value if self.value else given != self.own_options()[self.prefix]

    def rate(self, options: Options) -> float:
        """Its usual learning rate with these options, as a multiple of full fine-tuning's."""
        return self.rate_factor

    def merge_wanted(self, options: Options) -> bool:
        """Whether the options ask for its merging at the end of a run."""
        return self.wanted(options) and bool(getattr(options, f"{self.prefix}_merge", False))

    def own_options(self) -> dict[str, Any]:
        """Its options with their defaults."""
        return {
            option.name: option.default
            for option in fields(Options)
            if option.name == self.prefix or option.name.startswith(f"{self.prefix}_")
        }

    def without(self, options: Options) -> Options:
        """The options with all of this adapter's at their defaults."""
        return replace(options, **self.own_options())


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """BERT's own names for an adapted encoder's, as keys, and the names in the encoder.

    A linear that an adapter wraps is its `base`, and is BERT's all the same. Of a layer of which
    each task has its own, `by_task`, the first task's is BERT's.
    """
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"\.(base|by_task\.[^.]+)\.", ".", name)
        found.setdefault(plain, name)
    return found


def rebuilt(model: nn.Module, read: Mapping[nn.Parameter, Tensor]) -> frozenset[str]:
    """The names of the parameters that the next build of a model makes again, from its base.

    They need not be saved. That is what is frozen and has the value that was read: `read` has it
    for each parameter that the pretrained weights gave. All others have to be saved, those that are
    frozen too: the next build would draw them anew.
    """
    names = set()
    for name, p in model.named_parameters():
        if not p.requires_grad and p in read and torch.equal(p, read[p]):
            names.add(name)
    return frozenset(names)


def fits(state: dict[str, Tensor], own: dict[str, Tensor], source: str) -> None:
    """UserError where names or shapes of saved tensors are not the model's own.

    The message begins with `source`.
    """
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    if missing or unexpected:
        raise UserError(
            f"{source}: does not fit the model (made with the same options?); "
            f"missing: {listed(missing) or 'none'}; unexpected: {listed(unexpected) or 'none'}"
        )
    wrong = [
        f"{name} {tuple(x.shape)} for {tuple(own[name].shape)}"
        for name, x in state.items()
        if x.shape != own[name].shape
    ]
    if wrong:
        raise UserError(
            f"{source}: does not fit the model (made with the same options?); "
            f"wrong shapes: {'; '.join(wrong)}"
        )
