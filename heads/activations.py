"""The activations of the MLP heads.

Each is a module that maps numbers one by one. Their sources are those of torch.nn's classes, whose
defaults they keep: a leaky ReLU has the slope .01 below zero; RReLU (Xu et al. 2015,
https://arxiv.org/abs/1505.00853) draws it anew from 1/8 to 1/3 for each number in training, and has
the mean of the two in evaluation. Left out: PReLU, whose slope is learned.
"""

from collections.abc import Callable

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "rrelu": nn.RReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
    "none": nn.Identity,
}
