"""The names that the course's scripts import from config.py."""

from base_bert import BertConfig

PretrainedConfig = BertConfig  # the handouts' base class of it

__all__ = ["BertConfig", "PretrainedConfig"]
