"""The course's faces of MultitaskBERT: methods for padded batches [B, T], masks 1 at tokens."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from forward import Forward
from options import Options
from packing import Batch, Tokens
from tasks import LEADERBOARD, Task
from text.cutting import Cutting, cut_all, cutting_of

SENTIMENT, PARAPHRASE, SIMILARITY = LEADERBOARD


def join_pair(first: np.ndarray, second: np.ndarray) -> Tokens:
    """`[CLS] a [SEP]` and `[CLS] b [SEP]` as `[CLS] a [SEP] b [SEP]`."""
    # Token type 1 begins behind the first [SEP].
    a = first[1:-1]
    ids = np.concatenate([first[:1], a, first[-1:], second[1:-1], second[-1:]])
    return Tokens(ids, (np.arange(len(ids)) > len(a) + 1).astype(np.int64))


def unpad(input_ids: Tensor, attention_mask: Tensor) -> list[Tokens]:
    """The sentences of a padded batch, unpadded.

    A row that is all padding keeps its first token, so that it has an output like any other.
    """
    sentences = []
    masks = attention_mask.cpu().numpy().astype(bool)
    for row, keep in zip(input_ids.cpu().numpy(), masks, strict=True):
        ids = row[keep] if keep.any() else row[:1]
        sentences.append(Tokens(ids, np.zeros(len(ids), dtype=np.int64)))
    return sentences


def cut_batch(task: str, texts: list[Tokens], each: int, cutting: Cutting) -> Batch:
    """A batch of examples of `each` uncut texts, one behind the other."""
    tokens, counts = cut_all(texts, cutting)
    numbers = torch.arange(len(texts)).repeat_interleave(torch.from_numpy(counts))
    return Batch(task, list(tokens), numbers // each, torch.empty(0), numbers % each)


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
        texts = unpad(input_ids, attention_mask)
        batch = cut_batch(SENTIMENT, texts, 1, cutting_of(task, self.options))
        logits = self.encode_batch(batch).logits[SENTIMENT]
        return task.by_class(logits) if task.by_class else logits

    def predict_pair(
        self, name: str, ids_1: Tensor, mask_1: Tensor, ids_2: Tensor, mask_2: Tensor
    ) -> Tensor:
        """Logits of pairs that come as two padded batches: [B, outputs]."""
        task = self.task_named(name)
        bi = task.is_bi(self.options)

        # Texts lie example after example: two each, or one that joins both.
        texts: list[Tokens] = []
        for first, second in zip(unpad(ids_1, mask_1), unpad(ids_2, mask_2), strict=True):
            if bi:
                texts += [first, second]
            else:
                texts.append(join_pair(first.ids, second.ids))
        batch = cut_batch(name, texts, 2 if bi else 1, cutting_of(task, self.options))
        return self.encode_batch(batch).logits[name]

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
