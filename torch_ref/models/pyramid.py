"""What the families of four stages share: the run through the stages and the maps that they leave.

B batch, N tokens, C channels, H x W the image; the token grid of stage s of 0 .. 3 is H x W / STRIDES[s].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..layers.attention import Attention
from ..layers.basic import Module, Tensor
from ..ops.tokens import Size, tokens_to_map
from ..utils.errors import UserError
from .spec import chosen_blocks

STRIDES = (4, 8, 16, 32)  # of the image


class Pyramid(Module):
    """The embeddings and the blocks of a family: a base for its classifier and for its backbone.

    A family's own class builds, of a spec, the first `stages` stages: for images of the spec's size, or with
    `any_size` for images of any sides that divide by 32.
    """

    EMBEDDING: tuple[str, ...] = ()  # the layers and parameters before the first block
    PREFIX_TOKENS: tuple[int, ...] = (0, 0, 0, 0)  # in front of the grid's tokens, by stage

    def __init__(self, spec: Any, stages: int = len(STRIDES), any_size: bool = False) -> None:
        super().__init__()
        self.spec = spec

    def run_stage(self, i: int, x: Tensor, size: Size) -> Tensor:
        """Stage i of 0 .. 3: the image (stage 0) or the last stage's tokens, and its own grid -> its tokens."""
        raise NotImplementedError(f"{type(self).__name__} has no run_stage")

    def parts_of_stage(self, i: int) -> Sequence[str]:
        """Return the names of the layers and parameters of stage i, in Swin with those that lead on to the next."""
        raise NotImplementedError(f"{type(self).__name__} has no parts_of_stage")

    def check_images(self, x: Tensor) -> None:
        """Refuse images that the model is not for."""
        raise NotImplementedError(f"{type(self).__name__} has no check_images")

    def stage_tokens(self, x: Tensor, stages: int) -> list[Tensor]:
        """Images of sides that divide by 32 -> the tokens [B, N, C] of the first stages, without prefix tokens."""
        height, width = x.shape[2:]
        tokens = []
        for i in range(stages):
            x = self.run_stage(i, x, (height // STRIDES[i], width // STRIDES[i]))
            tokens.append(x[:, self.PREFIX_TOKENS[i] :] if self.PREFIX_TOKENS[i] else x)
        return tokens

    def forward_intermediates(self, x: Tensor, indices: Iterable[int] | None = None) -> list[Tensor]:
        """Images -> the maps [B, C, H, W] after the chosen stages of 0 .. 3, of strides 4, 8, 16, 32.

        `indices` defaults to all four; stages behind the last chosen one are not run. The maps are not
        normed, and without a class token.
        """
        self.check_images(x)
        indices = chosen_blocks(indices, len(STRIDES), "stage")
        height, width = x.shape[2:]
        tokens = self.stage_tokens(x, max(indices, default=-1) + 1)
        return [tokens_to_map(tokens[i], (height // STRIDES[i], width // STRIDES[i])) for i in indices]


def grid_of_call(size: Size | None, grid: Size | None) -> Size:
    """Return the grid that a block is given with its tokens, or else the one that it is built for."""
    found = grid if size is None else size
    if found is None:
        raise UserError(
            "a block that is built for any grid needs the (H, W) of its tokens: call it with them"
        )
    return found


def check_any_size(forms: Iterable[Iterable[str]], table: Mapping[str, type[Attention]]) -> None:
    """Refuse forms that keep a table over the whole token grid, where the grid is not known."""
    for form in {form for stage in forms for form in stage}:
        if table[form].grid_bound:
            raise UserError(
                f"{form} attention keeps a table over the token grid, so that it serves images of one size alone; a "
                "backbone takes any: give another attn_type"
            )
