"""RepeatedLinear against plain linear layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mistnn.nn.dense import dense_network
from mistnn.nn.repeated import RepeatedLinear, repeated


def recurrence(linear, values: Tensor) -> Tensor:
    """Each use sees the result of the one before."""
    total, state = values.new_zeros(()), values
    for _ in range(4):
        state = linear(state).tanh()
        total = total + state.square().sum()
    return total


@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients_are_those_of_a_linear_layer(with_bias):
    torch.manual_seed(0)
    layer = nn.Linear(3, 3, bias=with_bias).double()
    values = torch.randn(2, 5, 3, dtype=torch.double, requires_grad=True)
    inputs = [values, *layer.parameters()]
    expected = torch.autograd.grad(recurrence(layer, values), inputs)
    found = torch.autograd.grad(recurrence(RepeatedLinear(layer.weight, layer.bias), values), inputs)
    torch.testing.assert_close(found, expected)


def test_uses_without_gradient_are_left_out():
    layer, values = nn.Linear(3, 2), torch.randn(4, 3)
    linear = RepeatedLinear(layer.weight, layer.bias)
    used, unused = linear(values), linear(2 * values)
    used.sum().backward()
    assert layer.weight.grad is not None and unused.requires_grad
    torch.testing.assert_close(layer.weight.grad, values.sum(0).expand(2, 3))


def test_nothing_reaches_the_loss():
    layer = nn.Linear(3, 2)
    weight = torch.ones((), requires_grad=True)
    linear = RepeatedLinear(layer.weight, layer.bias)
    (weight * linear(torch.randn(4, 3)).detach().sum()).backward()
    assert layer.weight.grad is None


def test_without_gradients_it_is_a_linear_layer():
    layer, values = nn.Linear(3, 2), torch.randn(4, 3)
    with torch.no_grad():
        torch.testing.assert_close(RepeatedLinear(layer.weight, layer.bias)(values), layer(values))


def test_network_in_half_precision():
    torch.manual_seed(0)
    network, values = dense_network(6, (16, 8), 2), torch.randn(10, 6)
    expected = torch.autograd.grad(network(values).square().sum(), list(network.parameters()))
    layers = repeated(network, torch.bfloat16)
    found = torch.cat([layers(part.bfloat16()).float() for part in values.split(3)])
    torch.testing.assert_close(found, network(values), atol=0.05, rtol=0.05)
    gradients = torch.autograd.grad(found.square().sum(), list(network.parameters()))
    for gradient, one in zip(gradients, expected, strict=True):
        assert (gradient - one).norm() < 0.05 * one.norm()


def test_skipped_layers():
    network, values = dense_network(4, (5, 5), 2), torch.randn(3, 5)
    torch.testing.assert_close(repeated(network, skip=1)(values), network[1:](values))
