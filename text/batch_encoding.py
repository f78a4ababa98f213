"""What a call of the tokenizer gives."""

from typing import Any

import torch


class BatchEncoding(dict[str, Any]):
    """What a tokenizer's call gives: a dict whose keys are attributes too, as in transformers."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this encoding has no {name}") from None

    def to(self, device: str | torch.device) -> "BatchEncoding":
        """Itself, its tensors moved to the device; lists stay."""
        for name, value in self.items():
            if isinstance(value, torch.Tensor):
                self[name] = value.to(device)
        return self
