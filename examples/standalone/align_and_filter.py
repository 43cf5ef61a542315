"""A soft filter and a contrastive loss of gensr inside somebody else's training loop: plain PyTorch, no spec.

A toy task: a candidate is liked where the history holds something like it. Users are seen by two tables, and the loss
pulls a user's two vectors together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.fusion import CrossAttentionFilter, SymmetricInfoNCE

USERS, ITEMS, EVENTS, CANDIDATES, DIM = 64, 200, 8, 6, 16


def toy_data(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Item vectors [ITEMS, DIM], histories and candidates as item rows, and labels [USERS, CANDIDATES]."""
    items = F.normalize(torch.randn(ITEMS, DIM, generator=generator), dim=1) * DIM**0.5
    history = torch.randint(ITEMS, (USERS, EVENTS), generator=generator)
    candidates = torch.randint(ITEMS, (USERS, CANDIDATES), generator=generator)
    closest = (items[candidates] @ items[history].transpose(1, 2)).amax(2)  # [USERS, CANDIDATES]
    return items, history, candidates, (closest > closest.median()).float()


class Model(nn.Module):
    """Filter the history by the candidate, compare the two; users also have a vector in each of two tables."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = CrossAttentionFilter(DIM, heads=2)
        self.answer = nn.Linear(DIM, 1)
        self.by_clicks, self.by_words = nn.Embedding(USERS, DIM), nn.Embedding(USERS, DIM)

    def forward(self, history: Tensor, candidates: Tensor, mask: Tensor) -> Tensor:
        """Scores [B, C]."""
        tokens, _ = self.filter(history, candidates, mask)  # [B, C, 1, DIM], weights [B, C, L]
        scores: Tensor = self.answer(tokens.squeeze(2) * candidates).squeeze(2)
        return scores


def main() -> None:
    """Train for 150 steps and print both losses every 50."""
    torch.manual_seed(0)
    items, history, candidates, labels = toy_data(torch.Generator().manual_seed(0))
    mask = torch.arange(EVENTS) < torch.randint(1, EVENTS + 1, (USERS, 1))  # histories of 1 to 8 real events
    model, align = Model(), SymmetricInfoNCE(temperature=0.1)
    optimizer = torch.optim.Adam([*model.parameters(), *align.parameters()], lr=0.02)
    for step in range(151):
        task = F.binary_cross_entropy_with_logits(model(items[history], items[candidates], mask), labels)
        alignment = align(model.by_clicks.weight, model.by_words.weight)
        if step % 50 == 0:
            print(f"step {step:3d}  task {task.item():.3f}  alignment {alignment.item():.3f}")
        optimizer.zero_grad()
        (task + 0.1 * alignment).backward()
        optimizer.step()


if __name__ == "__main__":
    main()
