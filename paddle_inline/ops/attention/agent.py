"""Attention through a few pooled queries (Agent Attention, ECCV 2024) and to a few projected tokens (Linformer, 2020).

B batch, h heads, N = P + H * W tokens, P prefix tokens, d head width, a agents, m projected tokens.
"""

from __future__ import annotations

from ..inline_attention import softmax_attention
from ..resize import pool_map, resize_map
from ..tokens import Size, map_to_tokens, tokens_to_map
from .verbs import Tensor, matmul, matmul_nt, matmul_tn, softmax_last, swap_last


def pooled_agents(q: Tensor, size: Size, side: int) -> Tensor:
    """Patch queries [B, H * W, C] -> agents [B, side^2, C], by adaptive average pooling, row by row."""
    return map_to_tokens(pool_map(tokens_to_map(q, size), (side, side)))


def agent_bias(size: Size, table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The bias between each agent and patch: resize(table)(y, x) + rows(y) + columns(x).

    Args:
        size: (H, W).
        table: [h, a, 7, 7], resized bilinearly.
        rows: [h, a, H, 1].
        columns: [h, a, 1, W].

    Returns:
        [h, a, H * W]
    """
    return (resize_map(table, size) + rows + columns).flatten(2)


def agent_attention(
    q: Tensor, k: Tensor, v: Tensor, agents: Tensor, scale: float, gather: Tensor, spread: Tensor
) -> Tensor:
    """Softmax attention of the agents to all tokens, and of all tokens to the agents, in O(N a d).

    Args:
        q, k, v: [B, h, N, d].
        agents: [B, h, a, d].
        scale: usually d ** -0.5.
        gather: added to the agents' logits, [h, a, N].
        spread: added to the tokens' logits, [h, N, a].

    Returns:
        [B, h, N, d]
    """
    gathered = softmax_attention(agents, k, v, scale, gather)  # [B, h, a, d]
    return softmax_attention(q, agents, gathered, scale, spread)


def agent_rows(q: Tensor, k: Tensor, agents: Tensor, scale: float, gather: Tensor, spread: Tensor) -> Tensor:
    """Return the weights [B, h, N, N] of `agent_attention`, rows that sum to 1: the definition, O(N^2)."""
    to_tokens = softmax_last(scale * matmul_nt(agents, k) + gather)
    to_agents = softmax_last(scale * matmul_nt(q, agents) + spread)
    return matmul(to_agents, to_tokens)


def linformer_attention(
    q: Tensor, k: Tensor, v: Tensor, project_k: Tensor, project_v: Tensor, scale: float
) -> Tensor:
    """Softmax attention to m sums of the keys and m sums of the values, in O(N m d).

    Args:
        q, k, v: [B, h, N, d].
        project_k, project_v: [N, m], shared by the heads.
        scale: usually d ** -0.5.

    Returns:
        [B, h, N, d]
    """
    return softmax_attention(q, matmul_tn(project_k, k), matmul_tn(project_v, v), scale)


def linformer_rows(q: Tensor, k: Tensor, project_k: Tensor, project_v: Tensor, scale: float) -> Tensor:
    """Return the weights [B, h, N, N] of `linformer_attention`: the definition, O(N^2)."""
    return matmul(softmax_last(scale * matmul_nt(q, matmul_tn(project_k, k))), swap_last(project_v))
