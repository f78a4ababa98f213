"""Options of adapters."""

from dataclasses import dataclass, fields

from declare import Section, declare, rules_of


@dataclass(frozen=True)
class AdapterOptions(Section):
    """Adapters: small updates of a frozen encoder"""

    # An option that needs no other one asks for an adapter: adapters_in() finds it by that.
    lora: bool = declare(
        False,
        "train low-rank updates of the encoder; its weights are frozen, the heads train on, all at "
        "10 times the learning rate",
    )

    # The update of one weight.
    lora_type: str = declare(
        "lora",
        "what learns; dora: the rows' lengths too",
        choices=("lora", "dora"),
        needs="lora",
    )
    lora_rank: int = declare(8, "r of the update B A", least=1, most=4096, needs="lora")
    lora_alpha: float = declare(
        16.0, "the update is scaled by alpha / r", above=0, most=100_000, needs="lora"
    )
    lora_scale: str = declare(
        "rank",
        "what alpha is divided by; r, or its square root, as rsLoRA",
        choices=("rank", "sqrt_rank"),
        needs="lora",
    )
    lora_init: str = declare(
        "kaiming",
        "how A starts; uniform, or normal with deviation 1 / r; B is 0",
        choices=("kaiming", "gaussian"),
        needs="lora",
    )
    lora_dropout: float = declare(
        0.0, "dropout on the low-rank path", least=0, below=1, needs="lora"
    )

    # Where updates go, and what becomes of them.
    lora_targets: str = declare(
        "all", "which linears of a layer", choices=("qk", "qv", "qkv", "all"), needs="lora"
    )
    lora_layers: str = declare(
        "all", "which layers; all, first4, middle4, last4, or a list such as 0,2,5", needs="lora"
    )
    lora_merge: bool = declare(
        False, "at the end fold the updates into the weights; of the best model", needs="lora"
    )

    # Other adapters.
    ia3: bool = declare(
        False,
        "train scales of keys, values, activations; (IA)^3, the encoder is frozen, the heads train "
        "on, all at 20 times the learning rate",
    )
    ia3_merge: bool = declare(
        False, "at the end fold the scales into the weights; of the best model", needs="ia3"
    )
    bitfit: str = declare(
        "off",
        "BitFit: train the encoder's biases alone; all, which it means alone, or those of queries "
        "and inner activations; the heads train on, all at 10 times the learning rate",
        choices=("off", "all", "query_mlp"),
        bare="all",
    )
    diff_pruning: str = declare(
        "off",
        "train a sparse change of the weights; diff pruning, gates a weight and, if structured, "
        "which it means alone, a matrix",
        choices=("off", "structured", "unstructured"),
        bare="structured",
    )
    diff_pruning_target: float = declare(
        0.005, "share of weights that change in the end", above=0, most=1, needs="diff_pruning"
    )
    diff_pruning_penalty: float = declare(
        1.25e-7,
        "loss for each open gate; times their expected number",
        least=0,
        most=1000,
        needs="diff_pruning",
    )
    diff_pruning_fix: float = declare(
        0.5,
        "share of the run after which gates are fixed; the largest changes train on",
        above=0,
        most=1,
        needs="diff_pruning",
    )
    diff_pruning_merge: bool = declare(
        False,
        "at the end fold changes into the weights; of the best model",
        needs="diff_pruning",
    )

    # Small layers between the encoder's.
    adapter: str = declare(
        "off",
        "bottleneck adapters in a frozen encoder; houlsby: two a layer, and the layers' norms "
        "train, pfeiffer: one, after the feed-forward; at 10 times the learning rate",
        choices=("off", "houlsby", "pfeiffer"),
    )
    adapter_size: int = declare(64, "width of the bottleneck", least=1, most=4096, needs="adapter")

    # Keys, values and tokens that are of no text.
    prefix_tuning: bool = declare(
        False,
        "train keys and values before each layer's; made by an MLP, in a frozen encoder, at 10 "
        "times the learning rate",
    )
    prefix_tuning_length: int = declare(
        10, "keys of each layer's prefix", least=1, most=512, needs="prefix_tuning"
    )
    prefix_tuning_width: int = declare(
        512, "width of the MLP that makes the prefixes", least=1, most=16384, needs="prefix_tuning"
    )
    p_tuning: str = declare(
        "off",
        "train prompts for a frozen encoder; v1: tokens behind [CLS], made by an LSTM, at 3 times "
        "the learning rate, v2: keys and values before each layer's, at 10 times the learning rate",
        choices=("off", "v1", "v2"),
    )
    p_tuning_length: int = declare(
        20, "tokens or keys of the prompt", least=1, most=500, needs="p_tuning"
    )


def adapters_in(o: AdapterOptions) -> list[str]:
    """The flags of the adapters that are asked for: they train on a frozen encoder.

    These are the options of the section that need no other one, where they are not at the default.
    One for an adapter that lets the encoder train belongs in another section.
    """
    switches = [f for f in fields(AdapterOptions) if not rules_of(f).needs]
    return [f"--{f.name}" for f in switches if getattr(o, f.name) != f.default]
