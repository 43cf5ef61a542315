import subprocess
import sys

import pytest
import torch

from gensr.fusion import SlotProjection


@pytest.mark.parametrize("rms", [0.05, 1.0, 12.0])
@pytest.mark.parametrize("size", [0.1, 10.0])
def test_slots_start_at_the_size_of_token_embeddings(rms, size):
    torch.manual_seed(0)
    slots = SlotProjection(16, 48, rms=rms)(torch.randn(5, 3, 16) * size)
    assert slots.shape == (5, 3, 48)
    torch.testing.assert_close(slots.square().mean(-1).sqrt(), torch.full((5, 3), rms), rtol=1e-3, atol=1e-4)


def test_a_zero_vector_gives_a_finite_slot_and_a_finite_gradient():
    torch.manual_seed(0)
    projection = SlotProjection(16, 48, rms=2.0)
    x = torch.zeros(2, 16, requires_grad=True)
    slots = projection(x)
    slots[:, 0].sum().backward()
    assert slots.isfinite().all()
    assert slots.any()
    assert x.grad.abs().max() < 100


def test_shorter_vectors_lean_towards_the_bias_so_that_length_is_seen():
    torch.manual_seed(0)
    projection = SlotProjection(16, 48)
    x, nothing = torch.randn(1, 16), projection(torch.zeros(1, 16))
    short, long = (torch.cosine_similarity(projection(x * size), nothing) for size in (0.05, 5.0))
    assert short > long


def test_naming_parts_in_a_config_loads_no_torch():
    code = "import sys, gensr.rankers.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_name_that_a_package_does_not_export_is_an_attribute_error():
    import gensr.encoders
    import gensr.fusion

    for package in (gensr.fusion, gensr.encoders):
        assert all(getattr(package, name) for name in dir(package))
        with pytest.raises(AttributeError, match="Nonsense"):
            getattr(package, "Nonsense")  # noqa: B009
