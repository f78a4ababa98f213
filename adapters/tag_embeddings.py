"""Embeddings of words' tags, added to the word embeddings before the first norm.

The idea is that of Syntax-Infused Transformer and BERT models (Sundararaman et al. 2019,
https://arxiv.org/abs/1911.06156): BERT is told the parts of speech at its input. Here

    e = LN(word + position + token type + pos[tag] + ner[tag])

with tables that start at zero, so that at first the model computes what it would without them. Row
0, no tag, stays zero. The encoder trains on, or is frozen by what stands beside this. Left out:
other features of words, such as their case.

text/tagger.py makes the tags. A model knows the pipeline that made them by its checksum, which is a
tensor of its state, and refuses to be loaded beside another one.
"""

import torch
from torch import Tensor, nn

from adapters.wrap import Adaptable, Adapter
from errors import UserError
from options import Options
from packing import Packed
from text.tagger import TAGS, load_tagger


class TagEmbeddings(nn.Module):
    """The sum of a token's tag embeddings: packed rows -> [N, H]."""

    pipeline: Tensor

    def __init__(self, size: int, kinds: list[str], fingerprint: str, flag: str):
        super().__init__()
        self.tables = nn.ModuleDict()
        for kind in kinds:
            zeros = torch.zeros(len(TAGS[kind]) + 1, size)
            self.tables[kind] = nn.Embedding.from_pretrained(zeros, freeze=False, padding_idx=0)
        # SHA-256 of the pipeline that tags: [32]. The flag that named it is for messages.
        own = torch.tensor(list(bytes.fromhex(fingerprint)), dtype=torch.uint8)
        self.register_buffer("pipeline", own)
        self.flag = flag
        self.register_load_state_dict_pre_hook(check_pipeline)

    def forward(self, packed: Packed) -> Tensor:
        """[N, H]; UserError where the rows are of token ids alone, whose words nobody tagged."""
        parts = []
        for kind, table in self.tables.items():
            if kind not in packed.features:
                raise UserError(
                    f"--word_tags {kind}: this model needs texts, and got token ids; use predict()"
                )
            parts.append(table(packed.features[kind]))  # [N] -> [N, H]
        return torch.stack(parts).sum(0)


def check_pipeline(
    module: TagEmbeddings, state: dict[str, Tensor], prefix: str, *rest: object
) -> None:
    """UserError where a state that is about to be loaded was trained on another pipeline's tags."""
    then = state.get(f"{prefix}pipeline")
    if then is not None and not torch.equal(then.cpu(), module.pipeline.cpu()):
        was, now = (bytes(x.tolist()).hex()[:8] for x in (then.cpu(), module.pipeline.cpu()))
        raise UserError(
            f"{module.flag}: not the spaCy pipeline that the model was trained with: its files "
            f"have the checksum {now}, expected {was}; put that pipeline back"
        )


def add_tags(model: Adaptable, options: Options) -> None:
    """Add the embeddings to the model's."""
    tagger = load_tagger(options.word_tags_model)
    kinds = [kind for kind in TAGS if kind in options.word_tags]
    flag = f"--word_tags_model {options.word_tags_model} ({tagger.name})"
    model.embedding_terms["word_tags"] = TagEmbeddings(
        model.bert.config.hidden_size, kinds, tagger.fingerprint, flag
    )


def counts(model: Adaptable) -> str:
    """Which tags are embedded."""
    term = model.embedding_terms["word_tags"]
    assert isinstance(term, TagEmbeddings)
    tables = ", ".join(f"{len(TAGS[kind])} of {kind}" for kind in term.tables)
    return f"word tags: {tables}; {term.flag}"


ADAPTER = Adapter("word_tags", add_tags, combines=True, counts=counts)
