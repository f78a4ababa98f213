"""In which file of a saved model each of its tensors stands, under which name and in which shape.

models/folder.py says which files there are. `model` is a MultitaskBERT in each of these functions,
which imports them.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from adapters.kinds import adapters_of
from adapters.wrap import PeftForm, plain_names
from models.folder import ADAPTER, ENCODER, HEADS, Places
from weights import hub_name

# How the names of parameters begin that follow the encoder.
OF_HEADS = ("pipelines.", "shared.")


def peft_form(model: Any) -> PeftForm | None:
    """The model's adapter as PEFT saves it.

    None where all of the encoder is saved, or it is not a single adapter of a kind that PEFT has on
    a plain BERT.
    """
    wanted = adapters_of(model.options)
    if model.whole or not model.bert.config.is_bert or len(wanted) != 1 or not wanted[0].in_peft:
        return None
    form = wanted[0].in_peft(model.bert, model.options)
    saved = {name for name in model.own_state() if not name.startswith(OF_HEADS)}
    # A pooler that the base lacks is saved too; PEFT's base draws one of its own, unused.
    saved -= {"bert.pooler_dense.weight", "bert.pooler_dense.bias"}
    return form if saved == {f"bert.{name}" for name in form.names} else None


def places(model: Any) -> Places:
    """In which file each tensor of model.own_state() stands, under which name."""
    files: Places = {HEADS: {}}
    if model.whole:
        own = model.bert.own_names()
        plain = plain_names(model.bert.state_dict())
        files[ENCODER] = {f"bert.{n}": hub_name(p) for p, n in plain.items() if p in own}
    elif form := peft_form(model):
        files[ADAPTER] = {f"bert.{name}": theirs for name, theirs in form.names.items()}
    placed = {name for names in files.values() for name in names}
    files[HEADS] = {name: name for name in model.own_state() if name not in placed}
    return files


def as_filed(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the model's names, in the shapes that they have in the files."""
    form = peft_form(model)
    shapes = {f"bert.{name}": shape for name, shape in form.shapes.items()} if form else {}
    return {name: x.view(shapes.get(name, x.shape)) for name, x in state.items()}
