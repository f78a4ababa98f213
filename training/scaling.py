"""Loss scaling: how fp16 trains.

Micikevicius et al. 2018, Mixed Precision Training, https://arxiv.org/abs/1710.03740, section 3.2.
Gradients below 6e-8 are zero in fp16. So the loss is multiplied by a power of two before the
backward pass, and the parameters' gradients, which are fp32, divided by it. Where one overflowed
the step is skipped and the scale halved; after 2,000 good steps it doubles.
"""

import torch
from torch import Tensor

from errors import UserError


class Scaler(torch.amp.GradScaler):
    """torch's GradScaler with a state of tensors, for checkpoints.

    Off, where nothing is in fp16, its methods hand through what they get, and it has no state.
    """

    def state_dict(self) -> dict[str, Tensor]:
        """The scale, how many steps went well since it changed, and the constants."""
        return {name: torch.tensor(value) for name, value in super().state_dict().items()}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """state_dict()'s inverse."""
        super().load_state_dict({name: value.item() for name, value in state_dict.items()})

    def check(self) -> None:
        """UserError where the scale has become so small that skipping steps leads nowhere."""
        if self.get_scale() < 1:
            raise UserError(
                "the gradient overflows fp16 whatever the loss is divided by; lower --lr, or "
                "--precision fp32"
            )


def make_scaler(device: torch.device, dtype: torch.dtype) -> Scaler:
    """The scaler of a model that computes in a dtype: on for fp16, off for others.

    UserError where torch can't scale on Apple's MPS yet (pytorch pull request 150255).
    """
    wanted = dtype == torch.float16
    if wanted and device.type == "mps" and torch.__version__ < "2.8":
        raise UserError(
            f"--precision fp16 on MPS takes torch 2.8 or newer, this is {torch.__version__}; "
            "--precision fp32"
        )
    return Scaler(device.type, enabled=wanted)
