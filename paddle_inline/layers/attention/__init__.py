"""Attention that reads q, k and v from one Linear (DeiT, Swin), and the table of the forms of attention.

A new form is a function in ops/attention/, a subclass of `Attention` here and a row of ATTENTION (table.py): every
backbone then takes it by its name.
"""

from .base import Attention as Attention
from .inline import InLineAttention as InLineAttention
from .inline import LocalFilter as LocalFilter
from .softmax import SoftmaxAttention as SoftmaxAttention
from .table import ATTENTION as ATTENTION
from .table import AttentionForm as AttentionForm
from .table import build_attention as build_attention
from .table import check_options as check_options
from .table import create_attention as create_attention
from .table import list_attentions as list_attentions
from .table import stage_options as stage_options
