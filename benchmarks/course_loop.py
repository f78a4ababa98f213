"""What the speed is compared with: a multitask BERT as a student of the course would write it.

The model and its training loop. A plain BERT from the paper's formulas in fp32, padded batches,
torch's dropout, text tokenised when its batch is made, each sentence of a pair encoded on its own,
AdamW as a loop over the parameters. Nothing is slowed down on purpose, nothing is tuned. Parameter
names are those of bert.py, so its weights load.
"""

import math
import sys
from collections.abc import Iterable
from pathlib import Path

# A benchmark is run as a script, so the project's folder is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_bert import BertConfig
from examples import Example
from tasks import TASKS
from tokenizer import BertTokenizer


class SelfAttention(nn.Module):
    """Attention over several heads, before the output projection.

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.2.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.heads = config.num_attention_heads

        # Three matrices, three products: joining them would be tuning.
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def split(self, x: Tensor) -> Tensor:
        """[B, T, H] -> [B, A, T, D]."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, T, H] and additive [B, 1, 1, T] -> [B, T, H]."""
        # [B, A, T, D] each.
        q = self.split(self.query(x))
        k = self.split(self.key(x))
        v = self.split(self.value(x))

        # The whole [B, A, T, T] matrix is held in memory, as the formula has it.
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask
        context = self.dropout(F.softmax(scores, dim=-1)) @ v
        return context.transpose(1, 2).reshape(x.shape)


class Layer(nn.Module):
    """Attention and feed-forward, each with dropout, residual and layer norm."""

    def __init__(self, config: BertConfig):
        super().__init__()

        # The attention half.
        self.self_attention = SelfAttention(config)
        self.attention_dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.attention_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention_dropout = nn.Dropout(config.hidden_dropout_prob)

        # The feed-forward half.
        self.interm_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.out_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.out_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.out_dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, T, H] -> [B, T, H]."""
        # Norm after the residual, as BERT has it.
        attended = self.attention_dense(self.self_attention(x, mask))
        x = self.attention_layer_norm(x + self.attention_dropout(attended))
        fed = self.out_dense(F.gelu(self.interm_dense(x)))
        return self.out_layer_norm(x + self.out_dropout(fed))


class CourseBERT(nn.Module):
    """The encoder."""

    def __init__(self, config: BertConfig):
        super().__init__()

        # The sum of three embeddings is the input of the first layer.
        self.word_embedding = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.pos_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.tk_type_embedding = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.embed_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.embed_dropout = nn.Dropout(config.hidden_dropout_prob)

        # The pooler reads the last layer's state of [CLS].
        self.bert_layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.pooler_dense = nn.Linear(config.hidden_size, config.hidden_size)

    def encode(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """[B, T] each -> the last hidden state [B, T, H]."""
        # Embeddings, [B, T, H]; positions are the same in every row.
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.word_embedding(input_ids) + self.pos_embedding(positions)
        x = x + self.tk_type_embedding(token_type_ids)
        x = self.embed_dropout(self.embed_layer_norm(x))

        # Added to the scores: padding gets no weight after the softmax. [B, 1, 1, T]
        mask = (1.0 - attention_mask[:, None, None, :].float()) * -10000.0
        for layer in self.bert_layers:
            x = layer(x, mask)
        return x

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, T] each -> the pooler's output [B, H]."""
        # Each sentence stands alone, so all tokens are of type 0.
        states = self.encode(input_ids, attention_mask, torch.zeros_like(input_ids))
        return torch.tanh(self.pooler_dense(states[:, 0]))


class CourseMultitask(nn.Module):
    """The encoder, one dropout, and a linear a task.

    A pair is its two sentences' outputs side by side.
    """

    def __init__(self, config: BertConfig, weights: dict[str, Tensor], tasks: Iterable[str]):
        super().__init__()

        # position_ids is a constant that this model makes as it goes, not a weight.
        self.bert = CourseBERT(config)
        known = {name: x for name, x in weights.items() if name != "position_ids"}
        self.bert.load_state_dict(known)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

        # A pair's head reads two pooled outputs, [B, 2 H].
        self.heads = nn.ModuleDict()
        for name in tasks:
            sentences = 2 if TASKS[name].pair else 1
            self.heads[name] = nn.Linear(sentences * config.hidden_size, TASKS[name].outputs)

    def forward(self, task: str, batch: list[dict[str, Tensor]]) -> Tensor:
        """One padded batch a sentence -> logits [B, outputs]."""
        pooled = [self.dropout(self.bert(x["input_ids"], x["attention_mask"])) for x in batch]
        return self.heads[task](torch.cat(pooled, dim=1))


class LoopAdamW(torch.optim.Optimizer):
    """AdamW, parameter by parameter.

    Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float):
        defaults = {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                # Averages of the gradient and its square, both from zero.
                state = self.state[p]
                if not state:
                    state.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["step"] += 1
                state["m"].mul_(b1).add_(p.grad, alpha=1 - b1)
                state["v"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                # The step, with the bias correction in its size; then the decay.
                size = group["lr"] * math.sqrt(1 - b2 ** state["step"]) / (1 - b1 ** state["step"])
                p.addcdiv_(state["m"], state["v"].sqrt().add_(group["eps"]), value=-size)
                p.add_(p, alpha=-group["lr"] * group["weight_decay"])


def collate(
    examples: list[Example], tokenizer: BertTokenizer, device: torch.device
) -> list[dict[str, Tensor]]:
    """Tokenise and pad the first sentences, and where there are any the second ones."""
    batches = []

    # Sentences in the same place form a batch, padded to the longest of that place.
    for i in range(len(examples[0].texts)):
        texts = [example.texts[i] for example in examples]
        encoded = tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
        batches.append({name: x.to(device) for name, x in encoded.items()})
    return batches


def task_loss(task: str, logits: Tensor, examples: list[Example]) -> Tensor:
    """Cross-entropy, binary cross-entropy, or the squared error on a score."""
    # A score from 0 to 5 is fitted as it is, without a sigmoid.
    labels = torch.tensor([e.label for e in examples], device=logits.device)
    if TASKS[task].outputs > 1:
        return F.cross_entropy(logits, labels.long())
    if TASKS[task].labels.whole:
        return F.binary_cross_entropy_with_logits(logits.view(-1), labels.float())
    return F.mse_loss(logits.view(-1), labels.float())


def train_step(
    model: CourseMultitask,
    optimizer: LoopAdamW,
    step: dict[str, list[Example]],
    tokenizer: BertTokenizer,
    clip: float,
) -> float:
    """One update with the examples of each task; the summed loss."""
    device = next(model.parameters()).device
    optimizer.zero_grad()

    # One task after another, each through the encoder by itself.
    losses = []
    for task, examples in step.items():
        logits = model(task, collate(examples, tokenizer, device))
        losses.append(task_loss(task, logits, examples))

    # All tasks share one update; .item() then waits for the device at every step.
    loss = torch.stack(losses).sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def predict_logits(
    model: CourseMultitask, task: str, examples: list[Example], tokenizer: BertTokenizer, size: int
) -> Tensor:
    """[examples, outputs], from batches of `size` in file order."""
    device = next(model.parameters()).device
    model.eval()

    # No sorting by length: a batch is as wide as its longest sentence.
    logits = []
    for start in range(0, len(examples), size):
        batch = collate(examples[start : start + size], tokenizer, device)
        logits.append(model(task, batch).cpu())
    return torch.cat(logits)
