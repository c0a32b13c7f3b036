"""Softmax attention through agents (Agent Attention) and to projected tokens (Linformer).

B batch, N = P + H * W tokens, P prefix tokens (class token), H x W token grid, C channels, h heads, d = C / h,
a agents, m projected tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...ops.attention.agent import (
    agent_attention,
    agent_bias,
    agent_rows,
    linformer_attention,
    linformer_rows,
    pooled_agents,
)
from ...ops.attention.verbs import join, swap_last
from ...ops.tokens import Size, merge_heads, split_heads
from ...utils.errors import UserError
from ..basic import Conv2d, Module, Tensor, filter_tokens, token_parameter
from ..initialised import uniform_parameter
from .base import Attention, check_count
from .grid import on_patches, patches_of

LARGEST_MATRIX = 1 << 26  # numbers: what a file claims must not fill the memory


class AgentAttention(Attention):
    """Agents, pooled from the queries, gather from all tokens by softmax; all tokens read from the agents by softmax.

    Args:
        dim, num_heads: C and h.
        grid: (H, W), of the bias tables' lines.
        num_agents: a, a square number. 49 in the paper's DeiT-T and -S, 81 in DeiT-B; 9, 16, 49, 49 in four stages.
        common: as for `Attention`.

    Raises:
        UserError: as for `Attention`; `num_agents` is no square number.
    """

    OPTIONS = ("num_agents",)
    STAGE_OPTIONS: Mapping[str, tuple[Any, ...]] = {"num_agents": (9, 16, 49, 49)}
    grid_bound = True
    SOURCE = "Han et al. (Agent Attention), ECCV 2024, arXiv 2312.08874"
    COMPLEXITY = "4 N a C + 9 N C"
    INJECTIVE = None
    ROW_DIMENSION = "min(d, a - 1)"
    EXTRA_PARAMETERS = "10 C + 98 h a + 2 h a (H + W) (+ 2 h a with a class token)"

    def __init__(
        self, dim: int, num_heads: int, *, grid: Size | None = None, num_agents: int = 49, **common: Any
    ) -> None:
        super().__init__(dim, num_heads, grid=grid, **common)
        self.side = math.isqrt(check_count("num_agents", num_agents))
        if self.side**2 != num_agents:
            near = max(1, round(math.sqrt(num_agents)))
            raise UserError(
                f"num_agents {num_agents} must be a square number, r x r pooled cells; try {near**2}"
            )
        height, width = grid or (0, 0)  # None: refused by `Attention`
        self.dwc = Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.an_bias = token_parameter(num_heads, num_agents, 7, 7)
        self.na_bias = token_parameter(num_heads, num_agents, 7, 7)
        self.ah_bias = token_parameter(1, num_heads, num_agents, height, 1)
        self.aw_bias = token_parameter(1, num_heads, num_agents, 1, width)
        self.ha_bias = token_parameter(1, num_heads, height, 1, num_agents)
        self.wa_bias = token_parameter(1, num_heads, 1, width, num_agents)
        if self.prefix_tokens:
            self.ac_bias = token_parameter(1, num_heads, num_agents, self.prefix_tokens)
            self.ca_bias = token_parameter(1, num_heads, self.prefix_tokens, num_agents)

    def biases(self, size: Size) -> tuple[Tensor, Tensor]:
        """Return what is added to the logits of agents and tokens, [h, a, N], and of tokens and agents, [h, N, a]."""
        gather = agent_bias(size, self.an_bias, self.ah_bias[0], self.aw_bias[0])
        rows, columns = swap_last(self.ha_bias[0, :, :, 0]), swap_last(self.wa_bias[0, :, 0])
        spread = agent_bias(size, self.na_bias, rows.unsqueeze(3), columns.unsqueeze(2))
        if self.prefix_tokens:
            gather = join(2, self.ac_bias[0], gather)
            spread = join(2, swap_last(self.ca_bias[0]), spread)
        return gather, swap_last(spread)

    def agents(self, q: Tensor, size: Size) -> Tensor:
        """Return the agents of queries [B, N, C], as heads [B, h, a, d]."""
        return split_heads(pooled_agents(patches_of(q, self.prefix_tokens), size, self.side), self.num_heads)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Tensor | None, size: Size) -> Tensor:
        local = filter_tokens(self.dwc, patches_of(v, self.prefix_tokens), size)
        agents = self.agents(q, size)
        q, k, v = (split_heads(part, self.num_heads) for part in (q, k, v))
        out = merge_heads(agent_attention(q, k, v, agents, self.scale, *self.biases(size)))
        return on_patches(out, self.prefix_tokens, lambda patches: patches + local)

    def rows(self, x: Tensor, size: Size) -> Tensor:
        self.check_size(x, size)
        q, k, _ = self.project(x, size)
        agents = self.agents(q, size)
        q, k = split_heads(q, self.num_heads), split_heads(k, self.num_heads)
        return agent_rows(q, k, agents, self.scale, *self.biases(size))


class TokenProjection(Module):
    """A matrix [N, m] that makes m tokens of N; uniform within m^-1/2.

    It is not a Linear: both frameworks store it as it stands here.
    """

    def __init__(self, num_tokens: int, num_projected: int) -> None:
        super().__init__()
        self.weight = uniform_parameter(num_projected**-0.5, num_tokens, num_projected)


class LinformerAttention(Attention):
    """Softmax attention to m learned sums of all keys and values.

    Args:
        dim, num_heads: C and h.
        grid: (H, W); N is fixed by the parameters.
        num_projected: m.
        common: as for `Attention`.
    """

    OPTIONS = ("num_projected",)
    grid_bound = True
    SOURCE = "Wang et al. (Linformer), 2020, arXiv 2006.04768"
    COMPLEXITY = "4 N m C"
    INJECTIVE = None
    ROW_DIMENSION = "min(d, m - 1)"
    EXTRA_PARAMETERS = "2 N m"

    def __init__(
        self, dim: int, num_heads: int, *, grid: Size | None = None, num_projected: int = 64, **common: Any
    ) -> None:
        super().__init__(dim, num_heads, grid=grid, **common)
        check_count("num_projected", num_projected)
        height, width = grid or (0, 0)  # None: refused by `Attention`
        num_tokens = self.prefix_tokens + height * width
        if num_tokens * num_projected > LARGEST_MATRIX:
            raise UserError(
                f"num_projected {num_projected} of {num_tokens} tokens: the matrix of linformer attention has more "
                f"than {LARGEST_MATRIX} numbers; use fewer, or another form for grids as large as {height} x {width}"
            )
        self.proj_k = TokenProjection(num_tokens, num_projected)
        self.proj_v = TokenProjection(num_tokens, num_projected)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return linformer_attention(q, k, v, self.proj_k.weight, self.proj_v.weight, self.scale)

    def weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return linformer_rows(q, k, self.proj_k.weight, self.proj_v.weight, self.scale)
