"""DCPT's alternating step on miniatures of its four networks."""

from __future__ import annotations

import pytest
import torch

from restorert.errors import InputError
from restorert.networks import FAMILIES, RestorationNetwork, create_network
from restorert.training import accuracy, classifier_for, dcpt_losses

NETWORKS = ("nafnet-dcpt", "restormer-dcpt", "promptir-dcpt", "swinir-dcpt")


def encoder(name: str) -> RestorationNetwork:
    family = next(family for family in FAMILIES if name in family.variants)
    return create_network(name, **family.small)


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_both_stages_train_what_they_are_for(name: str) -> None:
    classifier = classifier_for(encoder(name), ["one", "two", "three"], blocks=1)
    classifier.train().requires_grad_(True)
    clean, labels = pictures(2), torch.tensor([0, 1, 2])
    parts = dcpt_losses(classifier, clean, pictures(3), labels)
    assert parts["scores"].shape == (3, 3)
    expected = torch.nn.functional.cross_entropy(parts["scores"], labels)
    torch.testing.assert_close(parts["class"], expected)
    expected = (classifier.encoder(clean) - clean).abs().mean()
    torch.testing.assert_close(parts["pixel"], expected)

    parts["pixel"].backward(retain_graph=True)
    assert all(p.grad is None for p in classifier.decoder.parameters())
    grads = [p.grad for p in classifier.encoder.parameters() if p.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert any(grad.abs().max() > 0 for grad in grads)
    for parameter in classifier.parameters():
        parameter.grad = None
    parts["class"].backward()
    assert all(p.grad is not None for p in classifier.decoder.parameters())
    reached = [n for n, p in classifier.encoder.named_parameters() if p.grad is not None]
    assert reached
    # What lies behind the last feature classifies nothing.
    last = {"nafnet": "ending", "restormer": "output", "promptir": "output", "swinir": "conv_last"}
    behind = last[classifier.encoder.spec.family]
    assert any(n.startswith(behind) for n, _ in classifier.encoder.named_parameters())
    assert not any(n.startswith(behind) for n in reached)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_few_steps_learn_a_batch(name: str) -> None:
    classifier = classifier_for(encoder(name), ["smooth", "noisy"], blocks=1)
    classifier.train().requires_grad_(True)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(6, 3, 1, 1, generator=generator).expand(6, 3, 32, 32).contiguous()
    labels = torch.arange(6) % 2
    noise = 0.3 * torch.randn(clean.shape, generator=generator) * labels[:, None, None, None]
    course, right = [], []
    for _ in range(20):
        parts = dcpt_losses(classifier, clean, clean + noise, labels)
        course.append(float(parts["class"].detach()))
        right.append(int((parts["scores"].argmax(dim=1) == labels).sum()))
        optimizer.zero_grad()
        (parts["pixel"] + parts["class"]).backward()
        optimizer.step()
    # The middle of the last steps: another order of sums may spoil one picture for a step.
    # measured worst, of weights moved by 1e-6 as well: 0.16, of swinir-dcpt
    assert sorted(course[-5:])[2] < 0.5 * course[0], course
    assert sorted(right[-5:])[2] == 6, right
    chosen = torch.argmax(classifier(clean + noise), dim=1)
    for asked in (labels, 1 - labels, torch.zeros(6, dtype=torch.long)):
        expected = sum(a == b for a, b in zip(chosen.tolist(), asked.tolist(), strict=True)) / 6
        assert accuracy(classifier, clean + noise, asked) == pytest.approx(expected)


def test_what_the_sizes_of_the_decoder_are_read_off() -> None:
    made = classifier_for(encoder("nafnet-dcpt"), ["a", "b"])
    assert made.decoder.config.feature_channels == (8, 16)
    assert not made.decoder.config.with_image
    assert made.classes == ("a", "b")
    prompt = classifier_for(encoder("promptir-dcpt"), ["a", "b"]).decoder.config
    assert prompt.with_image
    swin = classifier_for(encoder("swinir-dcpt"), ["a", "b"]).decoder.config
    assert swin.feature_channels == (12,)


def test_seeded_and_the_global_state_untouched() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two = (classifier_for(encoder("nafnet-dcpt"), ["a", "b"]) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_network_without_features_is_refused() -> None:
    with pytest.raises(InputError, match="hinet has no features to classify; DCPT takes"):
        classifier_for(create_network("hinet", width=4, depth=2), ["a", "b"])
    with pytest.raises(InputError, match="two degradations have one name"):
        classifier_for(encoder("nafnet-dcpt"), ["a", "a"])
