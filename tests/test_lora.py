"""Oracle: peft, in a process of its own (our datasets.py would shadow the package `datasets`
there).
"""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

import lora
from adapters.layers import TARGETS
from adapters.wrap import rebuilt
from base_bert import BertConfig
from bert import BertModel
from casting import cast_linears
from errors import UserError
from lora import LINEARS, DoRALinear, LoRALinear, adapt, counts, merge
from tests.multitask import close

SMALL = {
    "hidden_size": 26,
    "num_attention_heads": 2,
    "intermediate_size": 7,
    "vocab_size": 101,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
CHANGES = [
    {},
    {"norm": "rmsnorm"},
    {"feed_forward": "swiglu"},
    {"norm": "rmsnorm", "feed_forward": "swiglu"},
]


class WithHead(nn.Module):
    """A head with a buffer on an encoder: the smallest thing that has the shape of
    MultitaskBERT.
    """

    def __init__(self, layers: int = 3, **change: str):
        super().__init__()
        torch.manual_seed(0)
        self.bert = BertModel(BertConfig(**SMALL, num_hidden_layers=layers, **change))
        self.head = nn.Linear(26, 5)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.bert(ids, torch.ones_like(ids))["pooler_output"])


def ids() -> Tensor:
    return torch.arange(1, 92).view(7, 13)


def train(model: nn.Module, steps: int = 3) -> None:
    """A few steps that move every tensor that trains."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(ids()), torch.arange(7) % 5).backward()
        optimizer.step()


def adapters(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, LoRALinear)]


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(ids())


# ---- the linear against peft

PEFT = """
import sys, torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
assert not any(path.rstrip("/") == sys.argv[1] for path in sys.path)
given, out = load_file(sys.argv[2]), {}
for case in sorted({name.split(".")[0] for name in given}):
    names = ("x", "weight", "bias", "a", "b", "alpha")
    x, weight, bias, a, b, alpha = (given[f"{case}.{name}"] for name in names)
    plain = torch.nn.Sequential(torch.nn.Linear(*reversed(weight.shape)))
    plain[0].weight.data, plain[0].bias.data = weight, bias
    dora, sqrt, dropout, seed = given[f"{case}.kind"].tolist()
    settings = {"r": a.shape[0], "lora_alpha": alpha.item(), "lora_dropout": dropout}
    config = LoraConfig(
        target_modules=["0"], use_dora=bool(dora), use_rslora=bool(sqrt), **settings
    )
    model = get_peft_model(plain, config)
    layer = model.base_model.model[0]
    out[f"{case}.initial_b"] = layer.lora_B["default"].weight.detach().clone()
    layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data = a.clone(), b.clone()
    if dora:
        magnitude = layer.lora_magnitude_vector["default"].weight
        out[f"{case}.initial_magnitude"] = magnitude.detach().clone()
        magnitude.data = given[f"{case}.magnitude"].clone()
    if dropout:  # of ones, which shows the mask that x gets too
        torch.manual_seed(int(seed))
        out[f"{case}.mask"] = layer.lora_dropout["default"](torch.ones_like(x))
        torch.manual_seed(int(seed))
    y = model(x)
    y.square().sum().backward()
    if dora:
        out[f"{case}.grad_magnitude"] = magnitude.grad
    out[f"{case}.y"] = y.detach()
    out[f"{case}.grad_a"] = layer.lora_A["default"].weight.grad
    out[f"{case}.grad_b"] = layer.lora_B["default"].weight.grad
    out[f"{case}.merged"] = model.merge_and_unload()[0].weight.detach()
save_file({k: v.contiguous() for k, v in out.items()}, sys.argv[3])
"""
CASES = {
    "odd": (13, 7, 3, 16.0, {}),
    "wide": (7, 49, 8, 1.0, {}),
    "one": (13, 13, 1, 0.5, {}),
    "fat": (7, 7, 13, 32.0, {}),
    "rslora": (13, 7, 3, 16.0, {"sqrt_rank": True}),
    "dora": (13, 7, 3, 16.0, {"dora": True}),
    "dropped": (13, 7, 3, 4.0, {"dora": True, "dropout": 0.4}),
    "both": (7, 49, 5, 2.0, {"dora": True, "sqrt_rank": True}),
}


def test_equals_peft(tmp_path: Path):
    pytest.importorskip("peft")
    given = {}
    torch.manual_seed(0)
    for case, (inputs, outs, rank, alpha, kind) in CASES.items():
        shapes = {"x": (5, 3, inputs), "weight": (outs, inputs), "bias": (outs,)}
        shapes |= {"a": (rank, inputs), "b": (outs, rank), "magnitude": (outs,)}
        flags = [kind.get(name, 0) for name in ("dora", "sqrt_rank", "dropout")]
        given[f"{case}.kind"] = torch.tensor([*map(float, flags), 7.0])
        given |= {f"{case}.{k}": torch.randn(shape) for k, shape in shapes.items()}
        given[f"{case}.alpha"] = torch.tensor(alpha)
    save_file(given, tmp_path / "given.safetensors")
    files = [str(tmp_path / "given.safetensors"), str(tmp_path / "out.safetensors")]
    command = [
        sys.executable,
        "-I",
        "-c",
        PEFT,
        str(Path(lora.__file__).parent),
        *files,
    ]  # -I: sys.path without us
    done = subprocess.run(command, cwd="/tmp", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = load_file(files[1])
    for case, (inputs, outs, rank, alpha, kind) in CASES.items():
        base = nn.Linear(inputs, outs)
        base.weight.data, base.bias.data = (
            given[f"{case}.weight"].clone(),
            given[f"{case}.bias"].clone(),
        )
        make = DoRALinear if kind.get("dora") else LoRALinear
        ours = make(base, rank, alpha, kind.get("dropout", 0.0), kind.get("sqrt_rank", False))
        if kind.get("dropout"):
            ours.dropout.forward = lambda x, mask=theirs[f"{case}.mask"]: x * mask
        assert torch.equal(ours.lora_B, theirs[f"{case}.initial_b"])
        learned = {"a": ours.lora_A, "b": ours.lora_B}
        ours.lora_A.data, ours.lora_B.data = given[f"{case}.a"], given[f"{case}.b"]
        if kind.get("dora"):
            learned["magnitude"] = ours.lora_magnitude_vector
            close(learned["magnitude"], theirs[f"{case}.initial_magnitude"])
            learned["magnitude"].data = given[f"{case}.magnitude"]
        y = ours(given[f"{case}.x"])
        y.square().sum().backward()
        assert ours.merged() is base
        close(y, theirs[f"{case}.y"])
        close(base.weight, theirs[f"{case}.merged"])
        for name, p in learned.items():
            torch.testing.assert_close(p.grad, theirs[f"{case}.grad_{name}"], atol=1e-3, rtol=1e-5)


def test_initial_a_is_kaiming_uniform():
    """a = sqrt 5 means uniform(-1, 1) / sqrt(inputs)."""
    torch.manual_seed(0)
    a = LoRALinear(nn.Linear(49, 13), 4000, 1.0, 0.0).lora_A * 7
    assert 0.999 < a.abs().max() <= 1 and abs(a.var().item() - 1 / 3) < 0.01


def test_initial_a_is_normal():
    """With a deviation of 1 / rank, as PEFT's."""
    torch.manual_seed(0)
    a = LoRALinear(nn.Linear(1000, 13), 49, 1.0, 0.0, gaussian=True).lora_A * 49
    assert abs(a.std().item() - 1) < 0.01 and a.abs().max() > 3


def test_the_norms_are_formulas():
    """Equation 5 of the paper written out, in float64."""
    torch.manual_seed(0)
    layer = DoRALinear(nn.Linear(13, 7), 3, 16.0, 0.0).double()
    nn.init.normal_(layer.lora_B)
    nn.init.normal_(layer.lora_magnitude_vector)
    x = torch.randn(5, 13, dtype=torch.float64)
    weight = layer.base.weight + 16 / 3 * layer.lora_B @ layer.lora_A
    expected = layer.lora_magnitude_vector * (x @ weight.T / weight.norm(dim=1)) + layer.base.bias
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-6)  # the norms are fp32


def test_dropout_is_on_the_low_rank_path_only():
    torch.manual_seed(0)
    layer, x = LoRALinear(nn.Linear(13, 7), 3, 16.0, dropout=0.5), torch.randn(5, 13)
    assert torch.equal(layer(x), layer.base(x))  # B is 0: a dropout on the base's path would show
    nn.init.normal_(layer.lora_B)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_rows_of_zeros_learn_from_the_low_rank_path():
    """SwiGLU's value starts at zero, a direction that does not exist: no NaN, and B moves."""
    base = nn.Linear(13, 7)
    nn.init.zeros_(base.weight)
    layer, x = DoRALinear(base, 3, 16.0, dropout=0.0), torch.randn(5, 13)
    layer(x).sum().backward()
    assert torch.equal(layer(x), base(x)) and layer.lora_B.grad.abs().sum() > 0
    assert layer.lora_magnitude_vector.grad.isfinite().all()
    nn.init.normal_(layer.lora_B)
    layer(x).sum().backward()
    assert layer.lora_magnitude_vector.grad.isfinite().all()


def test_a_dropped_input_leaves_the_base_s_output():
    """DoRA's first step, in which only B moves, sees the base itself."""
    torch.manual_seed(0)
    layer, x = DoRALinear(nn.Linear(13, 7), 3, 16.0, dropout=0.5), torch.randn(5, 13)
    assert torch.equal(layer(x), layer.base(x))
    nn.init.normal_(layer.lora_magnitude_vector)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


@pytest.mark.parametrize("kind", [LoRALinear, DoRALinear])
def test_bf16_input(kind: type[LoRALinear]):
    """The base's weights come cast (casting.cast_linears); the update's are cast here."""
    layer, x = kind(nn.Linear(13, 7), 3, 4.0, 0.0), torch.randn(5, 13)
    nn.init.normal_(layer.lora_B)
    cast = cast_linears(layer, torch.bfloat16)
    out = functional_call(layer, cast, x.bfloat16())
    assert set(cast) == {"base.weight", "base.bias"} and out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), atol=0.1, rtol=0.05)
    out.float().sum().backward()
    assert layer.lora_A.grad.dtype == layer.lora_B.grad.dtype == torch.float32


def test_norms_in_bf16_are_those_of_the_fp32_weight():
    """So that the first step is the base's in bf16 too."""
    layer, x = DoRALinear(nn.Linear(13, 7), 3, 4.0, 0.0), torch.randn(5, 13).bfloat16()
    cast = cast_linears(layer, torch.bfloat16)
    out = functional_call(layer, cast, x)
    assert torch.equal(out, functional_call(layer.base, cast_linears(layer.base, x.dtype), x))
    moved = copy.deepcopy(layer).double()
    assert moved.master[0] is moved.base.weight and moved.master[0].dtype == torch.float64


# ---- merging


@pytest.mark.parametrize("kind", [LoRALinear, DoRALinear])
def test_merging_one_linear(kind: type[LoRALinear]):
    torch.manual_seed(0)
    layer, x = kind(nn.Linear(13, 7), 3, 16.0, 0.0), torch.randn(5, 13)
    nn.init.normal_(layer.lora_B)
    before, weight = layer(x), layer.base.weight.clone()
    plain = layer.merged()
    assert type(plain) is nn.Linear and not torch.equal(plain.weight, weight)
    torch.testing.assert_close(plain(x), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", LINEARS)
@pytest.mark.parametrize("change", CHANGES)
def test_identity_then_training_then_merge(change: dict[str, str], kind: str):
    plain = WithHead(**change)
    model = copy.deepcopy(plain)
    adapt(model.bert, rank=3, targets="all", kind=kind)
    assert torch.equal(outputs(model), outputs(plain))
    train(model)
    trained = outputs(model)
    assert (trained - outputs(plain)).abs().max() > 0.1
    merge(model)
    assert not adapters(model)
    assert list(model.state_dict()) == list(plain.state_dict())  # plain names, in the old order
    assert type(model.bert.bert_layers[0].self_attention.query) is nn.Linear
    torch.testing.assert_close(outputs(model), trained, atol=1e-5, rtol=1e-5)
    merged = copy.deepcopy(model.state_dict())
    merge(model)
    assert all(torch.equal(x, merged[name]) for name, x in model.state_dict().items())
    plain.load_state_dict(model.state_dict())  # strict
    assert torch.equal(outputs(plain), outputs(model))


def test_eval_never_merges():
    model = WithHead()
    adapt(model.bert, rank=3)
    train(model)
    before = copy.deepcopy(model.state_dict())
    for mode in (False, True, False):
        outputs(model.train(mode))
        assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


# ---- what is adapted, and what trains


@pytest.mark.parametrize("change", CHANGES[::2])
@pytest.mark.parametrize(
    "layers, numbers", [("all", [0, 1, 2, 3, 4, 5]), ("middle4", [1, 2, 3, 4]), ("5,0", [0, 5])]
)
@pytest.mark.parametrize("targets", list(TARGETS))
def test_targets_and_layers(change: dict[str, str], layers: str, numbers: list[int], targets: str):
    up = ["interm_dense.gate", "interm_dense.value"] if change else ["interm_dense"]
    attention = [f"self_attention.{x}" for x in ("query", "key", "value")]
    parts = {
        "qk": attention[:2],
        "qv": attention[::2],
        "qkv": attention,
        "all": [*attention, "attention_dense", *up, "out_dense"],
    }[targets]
    model = WithHead(layers=6, **change)
    adapt(model.bert, targets=targets, layers=layers)
    assert adapters(model) == [f"bert.bert_layers.{i}.{part}" for i in numbers for part in parts]


@pytest.mark.parametrize("change", CHANGES)
def test_only_adapters_and_heads_train(change: dict[str, str]):
    model = WithHead(**change)
    adapt(model.bert, rank=3, targets="all", layers="0,2")
    before = {name: x.detach().clone() for name, x in model.named_parameters()}
    train(model)
    for name, parameter in model.named_parameters():
        learns = not name.startswith("bert.") or name.endswith((".lora_A", ".lora_B"))
        assert parameter.requires_grad == learns == (parameter.grad is not None), name
        assert torch.equal(parameter, before[name]) != learns, name
    linears = 3 * (7 if "feed_forward" in change else 6) + 1  # and the pooler
    assert counts(model) == f"LoRA: adapted {(linears - 1) // 3 * 2}/{linears} linears"


def test_counts_of_the_embedded_model(embedded: Path):
    model = nn.Module()
    model.bert = BertModel.from_pretrained(embedded)
    adapt(model.bert)
    assert counts(model) == "LoRA: adapted 12/37 linears"
    assert not any(module.training for module in model.bert.modules()), (
        "an adapter that drops out in eval mode"
    )
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learns == {f"{name}.lora_{x}" for name in adapters(model) for x in "AB"}
    known = rebuilt(model, {p: p.detach() for p in model.parameters()})
    assert {name for name, _ in model.named_parameters()} - known == learns


def test_refusals_leave_the_model_alone():
    model = WithHead()
    for change, message in [
        ({"targets": "kv"}, 'targets "kv": expected one of qk, qv, qkv, all'),
        ({"rank": 0}, "--lora_rank 0: expected 1 to 26, the width of the encoder"),
        ({"rank": 27}, "--lora_rank 27: expected 1 to 26, the width of the encoder"),
        ({"layers": "3"}, "from 0 to 2"),
        ({"layers": "9" * 5000}, "expected all, first4, middle4, last4 or numbers"),
    ]:
        with pytest.raises(UserError, match=message):
            adapt(model.bert, **change)
    assert not adapters(model) and all(p.requires_grad for p in model.parameters())
    adapt(model.bert)
    with pytest.raises(ValueError, match="without adapters"):
        adapt(model.bert)
