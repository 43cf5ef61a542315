"""Inputs of soft filters: two requests with four and two history items, three candidates each."""

import torch


def batch(b=2, c=3, length=4, dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    history, candidate, context = (
        torch.randn(s, generator=generator) for s in ((b, length, dim), (b, c, dim), (b, dim))
    )
    return history, candidate, torch.arange(length) < torch.tensor([[length], [2]]), context


def randomised(soft_filter):
    torch.manual_seed(3)
    for parameter in soft_filter.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return soft_filter.eval()


def every_parameter_gets_a_gradient(soft_filter):
    soft_filter(*batch()).tokens.square().sum().backward()
    return all(p.grad is not None and bool(p.grad.any()) for p in soft_filter.parameters())
