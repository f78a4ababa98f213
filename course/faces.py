"""The course's faces of MultitaskBERT: methods for padded batches [B, T], masks 1 at tokens."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from forward import Forward
from options import Options
from packing import Batch, Tokens
from tasks import LEADERBOARD, Task

SENTIMENT, PARAPHRASE, SIMILARITY = LEADERBOARD


def join_pair(first: np.ndarray, second: np.ndarray, limit: int) -> Tokens:
    """`[CLS] a [SEP]` and `[CLS] b [SEP]` as `[CLS] a [SEP] b [SEP]` of at most `limit` tokens.

    The longer one is cut first. The tokenizer's own pairs are cut in the same way: of an odd number
    of places the longer text, or else b, gets the one that is left over.
    """
    # The texts alone, and the room that [CLS] and two [SEP] leave them.
    a = first[1:-1]
    b = second[1:-1]
    room = limit - 3
    if len(a) + len(b) > room:
        short = min(len(a), len(b), room // 2)
        if len(a) > len(b):
            a, b = a[: room - short], b[:short]
        else:
            a, b = a[:short], b[: room - short]

    # Token type 1 begins behind the first [SEP].
    ids = np.concatenate([first[:1], a, first[-1:], b, second[-1:]])
    types = (np.arange(len(ids)) > len(a) + 1).astype(np.int64)
    return Tokens(ids, types)


def unpad(input_ids: Tensor, attention_mask: Tensor, limit: int) -> list[Tokens]:
    """The sentences of a padded batch, unpadded, cut before [SEP] to at most `limit` tokens.

    A row that is all padding keeps its first token, so that it has an output like any other.
    """
    sentences = []
    masks = attention_mask.cpu().numpy().astype(bool)
    for row, keep in zip(input_ids.cpu().numpy(), masks, strict=True):
        ids = row[keep] if keep.any() else row[:1]
        # The last token is [SEP]; it stays.
        if len(ids) > limit:
            ids = np.concatenate([ids[: limit - 1], ids[-1:]])
        sentences.append(Tokens(ids, np.zeros(len(ids), dtype=np.int64)))
    return sentences


def unlabelled(task: str, tokens: list[Tokens], each: int) -> Batch:
    """A batch of examples of `each` sequences, one behind the other."""
    owners = torch.arange(len(tokens)) // each
    return Batch(task, tokens, owners, torch.empty(0))


class CourseFaces:
    """What the course's evaluation functions call."""

    options: Options
    task_named: Callable[[str], Task]  # one of the model's tasks, or UserError

    def encode_batch(self, batch: Batch) -> Forward:
        """One encoder call for one task's batch; with --symmetric one for each order."""
        return self.forward_of({batch.task: batch})  # type: ignore[attr-defined]

    def predict_sentiment(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of the five grades: [B, 5].

        With --sst_loss ordinal 1 at the predicted grade and 0 elsewhere.
        """
        task = self.task_named(SENTIMENT)
        tokens = unpad(input_ids, attention_mask, self.options.max_length)
        logits = self.encode_batch(unlabelled(SENTIMENT, tokens, each=1)).logits[SENTIMENT]
        return task.by_class(logits) if task.by_class else logits

    def predict_pair(
        self, task: str, ids_1: Tensor, mask_1: Tensor, ids_2: Tensor, mask_2: Tensor
    ) -> Tensor:
        """Logits of pairs that come as two padded batches: [B, outputs]."""
        tokens: list[Tokens] = []
        limit = self.options.max_length
        bi = self.task_named(task).is_bi(self.options)
        # A cross-encoded pair is cut once it is joined.
        single = limit if bi else ids_1.shape[1] + ids_2.shape[1]
        firsts = unpad(ids_1, mask_1, single)
        seconds = unpad(ids_2, mask_2, single)

        # Sequences lie example after example: two each, or one that joins both.
        for first, second in zip(firsts, seconds, strict=True):
            if bi:
                tokens += [first, second]
            else:
                tokens.append(join_pair(first.ids, second.ids, limit))
        return self.encode_batch(unlabelled(task, tokens, each=2 if bi else 1)).logits[task]

    def predict_paraphrase(
        self,
        input_ids_1: Tensor,
        attention_mask_1: Tensor,
        input_ids_2: Tensor,
        attention_mask_2: Tensor,
    ) -> Tensor:
        """Logits of being paraphrases: [B]."""
        logits = self.predict_pair(
            PARAPHRASE, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2
        )
        return logits.squeeze(1)

    def predict_similarity(
        self,
        input_ids_1: Tensor,
        attention_mask_1: Tensor,
        input_ids_2: Tensor,
        attention_mask_2: Tensor,
    ) -> Tensor:
        """Similarities on the labels' scale, 0 to 5: [B]."""
        logits = self.predict_pair(
            SIMILARITY, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2
        )
        return self.task_named(SIMILARITY).predict(logits)
