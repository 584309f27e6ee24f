from __future__ import annotations

import pytest
import torch

from mistnn.ops.splines import control_grid, thin_plate_spline


def test_control_points_go_to_their_targets() -> None:
    torch.manual_seed(0)
    control = control_grid(4, 3)
    targets = control + 0.1 * torch.randn(5, 12, 2)
    reached = thin_plate_spline(control, targets, control.expand(5, -1, -1))
    torch.testing.assert_close(reached, targets, atol=1e-4, rtol=0)


def test_an_affine_map_is_itself() -> None:
    """The spline is exact on affine maps, at every point."""
    control, at = control_grid(4, 4).double(), torch.rand(2, 50, 2, dtype=torch.float64) * 3 - 1
    linear = torch.tensor([[1.2, 0.3], [-0.4, 0.8]], dtype=torch.float64)
    targets = (control @ linear.T + 0.5).expand(2, -1, -1)
    torch.testing.assert_close(thin_plate_spline(control, targets, at), at @ linear.T + 0.5)


def test_symmetry_leaves_the_middle_to_the_affine_part() -> None:
    """One corner of a square moved by d: the bending is 0 in the middle, and the best affine map moves it by d / 4."""
    control = control_grid(2, 2)
    targets = control.clone()[None]
    targets[0, 3, 0] += 0.5
    middle = thin_plate_spline(control, targets, torch.tensor([[[0.5, 0.5]]]))
    torch.testing.assert_close(middle, torch.tensor([[[0.625, 0.5]]]), atol=1e-5, rtol=0)


def test_the_smoothest_of_all() -> None:
    """Between the control points it agrees with scipy's interpolator of the same kernel."""
    from scipy.interpolate import RBFInterpolator

    torch.manual_seed(1)
    control = control_grid(4, 4).double()
    targets, at = control + 0.2 * torch.randn(1, 16, 2, dtype=torch.float64), torch.rand(1, 30, 2, dtype=torch.float64)
    expected = RBFInterpolator(control.numpy(), targets[0].numpy(), kernel="thin_plate_spline", degree=1)(at[0].numpy())
    torch.testing.assert_close(thin_plate_spline(control, targets, at)[0], torch.from_numpy(expected))


def test_gradients() -> None:
    torch.manual_seed(0)
    control = control_grid(3, 3).double()
    targets = (control + 0.1 * torch.randn(2, 9, 2, dtype=torch.float64)).requires_grad_()
    at = torch.rand(2, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: thin_plate_spline(control, a, b), (targets, at))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="2 rows"):
        control_grid(1, 3)


@pytest.mark.plain
def test_shapes() -> None:
    with pytest.raises(ValueError, match=r"targets \(batch, points, 2\)"):
        thin_plate_spline(control_grid(2, 2), torch.zeros(1, 3, 2), torch.zeros(1, 5, 2))
