"""From templates to prompts: tokenised once, filled in for a whole batch without per-example Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gensr.backbones.base import Prompt
from gensr.backbones.templates import Layout, TaskTemplates, prefix_length, split_template
from gensr.data.tasks import Task
from gensr.errors import BadInputError

PAD, TEXT, QUERY, SLOT = range(4)
TEXT_TOKENS = 256
"""Most tokens of a template's text between two markers."""
PADDING = 0.1
"""Share of a block that may be padding before requests are read apart from longer ones."""


class PromptBuilder(nn.Module):
    """Fills the templates of both tasks for a batch.

    Args:
        templates: wording, with markers.
        layout: ``packed`` cuts each template before its first vector: what stands before is the shared prefix.
        tokenize: a backbone's ``tokenize(texts, length)``.
        slots: vectors per marker, in the order in which the ranker supplies them; a marker not listed is left out.
        query_length: tokens a query may take.

    Raises:
        ValueError: a query stands after the first vector of a packed template.
        BadInputError: a text between two markers is longer than `TEXT_TOKENS`.
    """

    prefix_kind: Tensor
    prefix_value: Tensor
    block_kind: Tensor
    block_value: Tensor

    def __init__(
        self,
        templates: TaskTemplates,
        *,
        layout: Layout,
        tokenize: Callable[[Sequence[str], int], Tensor],
        slots: dict[str, int],
        query_length: int,
    ) -> None:
        super().__init__()
        prefixes, blocks = [], []
        for task in Task:
            pieces = split_template(getattr(templates, task.label))
            first = prefix_length(pieces, layout)
            prefixes.append(_columns(pieces[:first], tokenize, slots, query_length))
            blocks.append(_columns(pieces[first:], tokenize, slots, query_length))
        for name, columns in (("prefix", prefixes), ("block", blocks)):
            kind, value = _stack(columns)  # [1 + tasks, W] each; row 0 (no task) is all padding
            self.register_buffer(f"{name}_kind", kind, persistent=False)
            self.register_buffer(f"{name}_value", value, persistent=False)

    def forward(self, task: Tensor, query_ids: Tensor, slot_mask: Tensor) -> Prompt:
        """Prompts of a batch.

        Args:
            task: int64 [B] task codes.
            query_ids: int64 [B, Tq] tokens of the queries, 0 = padding.
            slot_mask: bool [B, S] which vectors exist; the others vanish from the prompt.
        """
        prefix, _, prefix_mask = _fill(self.prefix_kind[task], self.prefix_value[task], query_ids, slot_mask)
        block, slot, block_mask = _fill(self.block_kind[task], self.block_value[task], query_ids, slot_mask)
        prefix_mask, prefix = _compact(prefix_mask, prefix, left=True)
        block_mask, block, slot = _compact(block_mask, block, slot, left=False)
        return Prompt(prefix, prefix_mask, block, slot, block_mask, task)


def fill_slots(text: Tensor, slot: Tensor, vectors: Tensor) -> Tensor:
    """Put vectors into prompts: text [B, T, D], slot [B, T] (-1 = text), vectors [B, C, S, D] -> [B, C, T, D].

    The result has the text's dtype, which is that of the backbone's weights.
    """
    vectors = vectors.to(text.dtype)
    # A product with a 0/1 matrix: unlike gather, its gradient is summed in a fixed order.
    where = (slot.unsqueeze(-1) == torch.arange(vectors.shape[2], device=slot.device)).to(vectors.dtype)  # [B, T, S]
    placed = where.unsqueeze(1) @ vectors  # [B, C, T, D]
    return torch.where((slot >= 0)[:, None, :, None], placed.to(text.dtype), text.unsqueeze(1))


def distinct_prefixes(prompt: Prompt) -> tuple[Tensor, Tensor]:
    """The distinct prefixes of a batch [R, P], and which of them each request has [B].

    All recommendation requests ask in the same words, and so do all searches with one query.
    """
    distinct, rows = torch.unique(prompt.prefix, dim=0, return_inverse=True)
    return distinct, rows


def by_length(prompt: Prompt) -> list[Tensor]:
    """Rows of a batch in groups whose blocks are nearly of one length, the longest first; int64 [n] each.

    Work on padding is then at most a share of `PADDING`. Blocks of the packed layout mostly are of one length; prompts
    of the interleaved one, or with a vector for every item of a history, are not.
    """
    lengths = prompt.block_mask.sum(1)
    order = lengths.argsort(descending=True, stable=True)
    starts: list[int] = []
    longest = 0.0
    for place, length in enumerate(lengths[order].tolist()):
        if not starts or length < longest * (1 - PADDING):
            starts.append(place)
            longest = length
    ends = [*starts[1:], len(order)]
    return [order[start:end] for start, end in zip(starts, ends, strict=True)]


def _columns(
    pieces: list[tuple[str, str]],
    tokenize: Callable[[Sequence[str], int], Tensor],
    slots: dict[str, int],
    query_length: int,
) -> list[tuple[int, int]]:
    starts, columns, total = {}, [], 0
    for name, count in slots.items():
        starts[name], total = total, total + count
    for kind, content in pieces:
        if kind == "text":
            ids = tokenize([content], TEXT_TOKENS + 1)[0]
            if ids[-1] > 0:
                raise BadInputError(
                    f"templates: the text {content[:60]!r}... has more than {TEXT_TOKENS} tokens before the next "
                    "marker; shorten it"
                )
            columns += [(TEXT, int(token)) for token in ids[ids > 0]]
        elif kind == "query":
            columns += [(QUERY, position) for position in range(query_length)]
        elif content in slots:
            columns += [(SLOT, starts[content] + i) for i in range(slots[content])]
    return columns


def _stack(rows: list[list[tuple[int, int]]]) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    table = torch.zeros(2, len(rows) + 1, width, dtype=torch.int64)
    for number, row in enumerate(rows, start=1):
        if row:
            table[:, number, : len(row)] = torch.tensor(row, dtype=torch.int64).T
    return table[0], table[1]


def _fill(kind: Tensor, value: Tensor, query_ids: Tensor, slot_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, slot numbers and mask, all [B, W]."""
    is_query, is_slot = kind == QUERY, kind == SLOT
    words = query_ids.gather(1, torch.where(is_query, value, 0))
    ids = torch.where(kind == TEXT, value, torch.where(is_query, words, 0))
    present = slot_mask.gather(1, torch.where(is_slot, value, 0))
    mask = (ids > 0) | (is_slot & present)
    return ids, torch.where(is_slot, value, -1), mask


def _compact(mask: Tensor, *values: Tensor, left: bool) -> tuple[Tensor, ...]:
    """Move padding to one side and cut columns nobody uses: a score must not depend on its batch mates' lengths."""
    width = int(mask.sum(1).max()) if mask.numel() else 0
    order = (mask if left else ~mask).int().argsort(dim=1, stable=True)
    order = order[:, mask.shape[1] - width :] if left else order[:, :width]
    mask = mask.gather(1, order)
    return mask, *(value.gather(1, order) for value in values)
