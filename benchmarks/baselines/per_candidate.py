"""The released way of scoring and training GenSR, a prompt for each (request, candidate) pair, with a GenSR's weights.

Written from the facts of the released code, none of which is here. What it does, and what the library's exact layout
leaves out:

- every candidate of a request is a row of its own: both histories are encoded anew for it, and filtered;
- a prompt is five text segments with four vectors between them; a segment is padded to the longest of its batch, so
  that in a batch of both tasks padding stands in the middle of prompts, under a mask;
- a score comes from transformers' ``generate`` for one token, with the scores of the whole vocabulary;
- a training step is the whole forward pass with the cross-entropy over the vocabulary, the contrastive loss over the
  rows, gradient clipping at norm 1 and torch's default AdamW.

T5 counts padding into the distances between tokens. Margins therefore equal those of the exact layout where no segment
is padded, as in a batch of one task whose queries have one length; in a mixed batch they do not, by the released path's
own fault, and only speeds can be compared. A causal model's prompt has all text in front, and padding there is free.

The released path tokenises texts in the workers of its data loader: here the ids of items and queries are at hand, and
a template is tokenised once a batch, which is in its favour. So is the attention, which is what the installed
transformers chooses (SDPA, where it is new enough) and not the slower one of its day.

N (request, candidate) rows, D width of the backbone, T tokens of a prompt.
"""

from __future__ import annotations

from functools import cache
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gensr.backbones.templates import split_template
from gensr.bench.workloads import one_at_a_time
from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.rankers.gensr import GenSR

ROWS = 1400
"""Rows of an evaluation batch in the released code: 14 requests of 100 candidates."""
SLOTS = ("cf_history", "text_history", "cf_candidate", "text_candidate")


@torch.inference_mode()
def score(ranker: GenSR, batch: Batch, *, rows: int = ROWS) -> Tensor:
    """logit(Yes) - logit(No), float32 [B, C]; `rows` rows at a time.

    Args:
        ranker: four slots a prompt, a filter that reads no query, tokens as the units of its semantic histories; a T5
            in the interleaved layout, or a causal model with all text before the slots.
        batch: requests with C real candidates each.
        rows: rows of a forward pass.
    """
    pairs = one_at_a_time(batch)
    parts = [_margins(ranker, pairs.select(part)) for part in torch.arange(len(pairs)).split(rows)]
    return torch.cat(parts).view(batch.cand.shape)


def loss(ranker: GenSR, pairs: Batch) -> Tensor:
    """Cross-entropy over the vocabulary plus the weighted contrastive loss of rows [N, 1]."""
    vectors = slots(ranker, pairs)
    inputs, mask = prompts(ranker, pairs, vectors)
    labels = torch.where(pairs.label > 0.5, ranker.backbone.yes, ranker.backbone.no)  # [N, 1]
    total: Tensor = ranker.backbone.model(inputs_embeds=inputs, attention_mask=mask, labels=labels).loss
    if ranker.alignment is not None:
        contrastive = ranker.alignment(vectors["cf_history"], vectors["text_history"], None)
        total = total + ranker.config.contrastive.weight * contrastive
    return total


def training_step(ranker: GenSR, batch: Batch, optimizer: torch.optim.Optimizer, *, rows: int = 200) -> None:
    """One update of a T5 ranker on the B * C rows of `batch`.

    Args:
        ranker: as in `score`, in training mode.
        batch: requests with their positive and negatives.
        optimizer: from `released_optimizer`.
        rows: rows of a forward and backward pass: where memory does not hold the whole batch, its gradients are summed
            over parts, and the contrastive loss sees the rows of a part.
    """
    pairs = one_at_a_time(batch)
    for part in torch.arange(len(pairs)).split(rows):
        (loss(ranker, pairs.select(part)) * (len(part) / len(pairs))).backward()
    nn.utils.clip_grad_norm_([p for p in ranker.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad()


def released_optimizer(ranker: GenSR, *, learning_rate: float = 1e-4) -> torch.optim.AdamW:
    """AdamW as torch makes it when nothing is asked for (on CPU a loop over tensors), decay 1e-3 on matrices."""
    trained = [parameter for parameter in ranker.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": 1e-3},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate)


def slots(ranker: GenSR, pairs: Batch) -> dict[str, Tensor]:
    """The four vectors of every prompt, [N, D] each: nothing is shared between the rows of a request."""
    cf, text = ranker.vectors["cf"], ranker.vectors["text"].encoder
    tokens = text.ids[pairs.hist_item, : text.units].flatten(1)  # [N, L * units]
    title = text.ids[pairs.cand[:, 0]]  # [N, length]
    title = title[:, : int((title > 0).sum(1).max())]
    words = (title > 0).unsqueeze(-1)
    mean = (ranker.backbone.embed(title).float() * words).sum(1) / words.sum(1)
    found = {}
    for name, history, mask, candidate in (
        ("cf", cf(pairs.hist_item), pairs.hist_mask, cf(pairs.cand)),
        ("text", ranker.backbone.embed(tokens).float(), tokens > 0, mean.unsqueeze(1)),
    ):
        view = ranker.views[name]
        filtered = view.soft_filter(view.encoder(history, mask), candidate, mask)  # tokens [N, 1, 1, d]
        found[f"{name}_history"] = view.projection(filtered.tokens[:, 0, 0])
        found[f"{name}_candidate"] = view.projection(candidate[:, 0])
    return found


def prompts(ranker: GenSR, pairs: Batch, vectors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Embeddings [N, T, D] and mask [N, T] of whole prompts."""
    causal = not ranker.backbone.model.config.is_encoder_decoder
    asked, rows = torch.unique(torch.stack([pairs.task, pairs.query], dim=1), dim=0, return_inverse=True)
    texts = _segments(ranker, asked)
    between = [vectors[name].unsqueeze(1) for name in SLOTS]
    inputs, masks = [], []
    for same_segment, vector in zip_longest(zip(*texts, strict=True), between):
        padded = pad_sequence(list(same_segment), batch_first=True, padding_side="left" if causal else "right")
        ids = padded.to(rows.device)[rows]  # [N, n]
        inputs.append(ranker.backbone.embed(ids))
        masks.append(ids > 0)
        if vector is not None:
            inputs.append(vector.to(inputs[-1].dtype))
            masks.append(torch.ones_like(vector[..., 0], dtype=torch.bool))
    return torch.cat(inputs, dim=1), torch.cat(masks, dim=1).long()


def _margins(ranker: GenSR, pairs: Batch) -> Tensor:
    """Margins [N] of rows [N, 1], from the scores of one generated token."""
    inputs, mask = prompts(ranker, pairs, slots(ranker, pairs))
    generated: Any = ranker.backbone.model.generate(
        inputs_embeds=inputs,
        attention_mask=mask,
        max_new_tokens=1,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
        pad_token_id=0,
    )
    scores = generated.scores[0].float()  # [N, V]
    return scores[:, ranker.backbone.yes] - scores[:, ranker.backbone.no]


def _segments(ranker: GenSR, asked: Tensor) -> list[list[Tensor]]:
    """Token ids of P1-P5 for each (task, query) of `asked` [n, 2], the query in its place; on the CPU."""

    @cache
    def tokens(text: str) -> Tensor:
        return _real(ranker.backbone.tokenize([text], 512)[0])

    found = []
    for task, query in zip(asked[:, 0].tolist(), ranker.query_ids[asked[:, 1]].cpu(), strict=True):
        segments: list[list[Tensor]] = [[]]
        names = []
        for kind, content in split_template(getattr(ranker.config.templates, Task(task).label)):
            if kind == "slot":
                names.append(content)
                segments.append([])
            else:
                segments[-1].append(_real(query) if kind == "query" else tokens(content))
        assert tuple(names) == SLOTS, f"the released prompt has the slots {SLOTS}, this one {tuple(names)}"
        found.append([torch.cat([query[:0], *parts]) for parts in segments])
    return found


def _real(ids: Tensor) -> Tensor:
    return ids[ids > 0]
