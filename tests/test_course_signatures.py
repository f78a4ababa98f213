"""The course's signatures on padded tensors [B, T, H]. Oracle: transformers.BertModel, and the
handout's own loop over layers.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bert import BertLayer, BertModel, BertSelfAttention
from tests.test_bert import close, random_batch, random_pair, transformers
from utils import get_extended_attention_mask

Pair = tuple[BertModel, nn.Module]
Batch = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Our model and transformers', of three layers with the same random weights."""
    return random_pair(39, 3, 17, tmp_path_factory.mktemp("theirs"))


@pytest.fixture
def batch() -> Batch:
    """Ids, mask and token types [B, T]."""
    torch.manual_seed(1)
    return random_batch(13)


def oracle_states(theirs: nn.Module, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """Their hidden states, the embeddings first."""
    with torch.no_grad():
        return theirs(ids, attention_mask=mask, output_hidden_states=True).hidden_states


def course_mask(mask: Tensor) -> Tensor:
    """The handout's extended mask, written out: [B, 1, 1, T]."""
    return (1 - mask.float())[:, None, None, :] * -10000.0


def test_embed(pair: Pair, batch: Batch):
    ours, theirs = pair
    ids, _, types = batch
    with torch.no_grad():
        close(ours.embed(ids), theirs.embeddings(ids))
        close(ours.embed(input_ids=ids), theirs.embeddings(ids))
        close(ours.embed(ids, types), theirs.embeddings(ids, token_type_ids=types))
        positions = torch.arange(5, 18).expand(7, 13)
        expected = theirs.embeddings(ids, token_type_ids=types, position_ids=positions)
        close(ours.embed(ids, types, positions), expected)
        assert ours.embed(ids).shape == (7, 13, 39)


def test_extra_is_added_before_the_norm(pair: Pair, batch: Batch):
    """As if it had stood in the word embeddings; oracle: theirs, given those."""
    ours, theirs = pair
    ids, _, types = batch
    extra = torch.randn(7, 13, 39)
    with torch.no_grad():
        words = ours.word_embedding(ids) + extra
        expected = theirs.embeddings(inputs_embeds=words, token_type_ids=types)
        close(ours.embed(ids, types, summand=extra), expected)


@pytest.mark.parametrize("grad", [False, True])
def test_encode(pair: Pair, batch: Batch, grad: bool):
    ours, theirs = pair
    ids, mask, _ = batch
    states = oracle_states(theirs, ids, mask)
    real = mask.bool()
    with torch.set_grad_enabled(grad):
        for given in (mask, mask.float(), real, course_mask(mask)):
            out = ours.encode(ours.embed(ids), attention_mask=given)
            assert out.shape == (7, 13, 39)
            close(out[real], states[-1][real])
        close(ours.encode(ours.embed(ids), mask), ours(ids, mask)["last_hidden_state"])


@pytest.mark.parametrize("grad", [False, True])
def test_layers_and_attention_take_the_extended_mask(pair: Pair, batch: Batch, grad: bool):
    """Each layer, and each layer's attention, on what the oracle's layer got."""
    ours, theirs = pair
    ids, mask, _ = batch
    states = oracle_states(theirs, ids, mask)
    extended = course_mask(mask)
    assert torch.equal(get_extended_attention_mask(mask, torch.float32), extended)
    real = mask.bool()
    with torch.set_grad_enabled(grad):
        for i, layer in enumerate(ours.bert_layers):
            assert isinstance(layer, BertLayer)
            out = layer(states[i], extended)
            assert out.shape == states[i].shape
            close(out[real], states[i + 1][real])
            close(layer(states[i], attention_mask=mask)[real], states[i + 1][real])

            attention = layer.self_attention
            assert isinstance(attention, BertSelfAttention)
            attended = attention(states[i], extended)
            assert attended.shape == (7, 13, 39)
            expected = theirs.encoder.layer[i].attention.self(states[i], extended)[0]
            close(attended[real], expected[real])


def test_a_mask_of_a_row_for_each_query(pair: Pair):
    """[B, T, T], and what the course's helper makes of it: causal attention, by hand."""
    ours, _ = pair
    attention = ours.bert_layers[0].self_attention
    ids = torch.randint(1, 101, (3, 5))  # as many as there are heads
    real = (torch.arange(5) < torch.tensor([5, 2, 3])[:, None]).float()
    causal = torch.ones(5, 5).tril() * real[:, None, :]
    extended = get_extended_attention_mask(causal, torch.float32)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            hidden = ours.embed(ids)
            out = attention(hidden, extended)
            for t in range(5):
                alone = attention(hidden[:, : t + 1], course_mask(real[:, : t + 1]))
                close(out[:, t], alone[:, t])
            close(attention(hidden, causal), out)
            out = ours.encode(hidden, extended)
            close(ours.encode(hidden, causal), out)
            close(ours(ids, causal.long())["last_hidden_state"], out)


def test_the_handouts_loop(pair: Pair, batch: Batch):
    ours, theirs = pair
    ids, mask, _ = batch
    real = mask.bool()
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            hidden = ours.embed(ids)
            extended = get_extended_attention_mask(mask, ours.dtype)
            for layer in ours.bert_layers:
                hidden = layer(hidden, extended)
            close(hidden[real], ours.encode(ours.embed(ids), mask)[real])
            close(hidden[real], oracle_states(theirs, ids, mask)[-1][real])
            first = ours.pooler_af(ours.pooler_dense(hidden[:, 0]))
            close(first, ours(ids, mask)["pooler_output"])


def test_add_norm(pair: Pair):
    """Oracle: their output blocks, dense(hidden) + input through LayerNorm."""
    ours, theirs = pair
    layer, oracle = ours.bert_layers[1], theirs.encoder.layer[1]
    x, attended, inner = torch.randn(7, 13, 39), torch.randn(7, 13, 39), torch.randn(7, 13, 17)
    with torch.no_grad():
        out = layer.add_norm(
            x,
            attended,
            layer.attention_dense,
            layer.attention_dropout,
            layer.attention_layer_norm,
        )
        close(out, oracle.attention.output(attended, x))
        out = layer.add_norm(
            input=x,
            output=inner,
            dense_layer=layer.out_dense,
            dropout=layer.out_dropout,
            ln_layer=layer.out_layer_norm,
        )
        close(out, oracle.output(inner, x))


def test_hooks_see_padded_tensors(pair: Pair, batch: Batch):
    """What a hook on a layer sees is the layer's hidden state, and a hook may change it."""
    ours, theirs = pair
    ids, mask, types = batch
    real = mask.bool()
    seen: list[tuple[Tensor, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
        for layer in ours.bert_layers
    ]
    out = ours(ids, mask, types, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    assert [(x.shape, y.shape) for x, y in seen] == [((7, 13, 39), (7, 13, 39))] * 3
    for i, (before, after) in enumerate(seen):
        assert torch.equal(before, out["hidden_states"][i])
        assert torch.equal(after, out["hidden_states"][i + 1])
    states = theirs(ids, mask, types, output_hidden_states=True).hidden_states
    close(seen[1][1][real], states[2][real])

    hook = ours.bert_layers[2].register_forward_hook(lambda _, given, out: out + 1)
    close(ours(ids, mask, types)["last_hidden_state"], out["last_hidden_state"] + 1)
    hook.remove()


def test_gradients_flow_through_each_face(pair: Pair, batch: Batch):
    """To every parameter but the pooler's, and the same through the model, encode and the loop."""
    ours, theirs = pair
    ids, mask, _ = batch
    extended = course_mask(mask)
    weights = torch.randn(39) * mask[:, :, None]

    def loop() -> Tensor:
        hidden = ours.embed(ids)
        for layer in ours.bert_layers:
            hidden = layer(hidden, extended)
        return hidden

    def backward(states: Tensor, model: nn.Module) -> dict[str, Tensor]:
        model.zero_grad()
        (states * weights).square().sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    found = [
        backward(ours(ids, mask)["last_hidden_state"], ours),
        backward(ours.encode(ours.embed(ids), mask), ours),
        backward(loop(), ours),
    ]
    expected = {name for name, _ in ours.named_parameters() if "pooler" not in name}
    for gradients in found:
        assert set(gradients) == expected
    scale = max(gradient.abs().max() for gradient in found[0].values())
    for name, gradient in found[0].items():
        if not name.endswith("key.bias"):  # zero but for rounding
            assert gradient.any(), name
        for other in found[1:]:
            close(other[name] / scale, gradient / scale)
    theirs_too = backward(theirs(ids, mask).last_hidden_state, theirs)
    query = theirs_too["encoder.layer.0.attention.self.query.weight"]
    close(found[0]["bert_layers.0.self_attention.query.weight"] / scale, query / scale)


def test_embedded_weights_through_the_course_s_faces(embedded: Path):
    ours = BertModel.from_pretrained(embedded)
    theirs = transformers.BertModel.from_pretrained(embedded).eval()
    torch.manual_seed(2)
    ids, mask, _ = random_batch(13, vocab=30522)
    real = mask.bool()
    with torch.no_grad():
        close(ours.encode(ours.embed(ids), mask)[real], oracle_states(theirs, ids, mask)[-1][real])
