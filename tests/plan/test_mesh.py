"""How weights are cut over the devices of a TPU slice."""

import math

import pytest

from cngpt.model.shape import Shape, tensors
from cngpt.plan import mesh

XL = tensors(Shape(block="preln", vocab_size=21128, n_ctx=1024, n_layer=48, n_head=25, width=1600))  # 1.5b
STATE = 16 * sum(math.prod(shape) for shape in XL.values())  # float32 weights, gradients and Adam's moments: 24.2 GB


@pytest.mark.parametrize(("devices", "wanted"), [(8, (8, 1)), (32, (32, 1)), (256, (64, 4))])
def test_1_5b_is_cut_almost_evenly_over_any_slice(devices, wanted):
    chosen = mesh.choose(XL, devices)
    assert chosen == wanted
    assert STATE / devices <= 16 * mesh.numbers_per_device(XL, chosen) < 1.01 * STATE / devices


def test_one_side_over_256_devices_would_leave_most_of_1_5b_on_each():
    """What the rectangle is for: neither 1,600 nor 4,800 divides by 256."""
    by_dimension_0 = sum(math.prod(shape) // (256 if shape[0] % 256 == 0 else 1) for shape in XL.values())
    assert 0.98e9 < by_dimension_0 < 0.99e9
    assert mesh.numbers_per_device(XL, mesh.choose(XL, 256)) < 6e6


@pytest.mark.parametrize("devices", [1, 4, 6, 8, 32, 128, 256])
@pytest.mark.parametrize("width", [128, 1536, 1600])
def test_every_tensor_is_cut_into_equal_pieces(devices, width):
    sizes = tensors(Shape(block="gpt2ml", vocab_size=21128, n_ctx=1024, n_layer=2, n_head=1, width=width))
    rows, columns = chosen = mesh.choose(sizes, devices)
    assert rows * columns == devices
    for shape in sizes.values():
        spec = mesh.spec(shape, chosen)
        assert all(size % mesh.parts(axis, chosen) == 0 for size, axis in zip(shape, spec, strict=True))
        sides = [side for axis in spec if axis for side in (axis if isinstance(axis, tuple) else (axis,))]
        assert len(sides) == len(set(sides)), "one side of the mesh cuts one dimension"


def test_the_sides_of_a_matrix_are_cut_by_the_sides_of_the_mesh():
    assert mesh.spec((4800, 1600), (64, 4)) == ("rows", "columns")
    assert mesh.spec((6400,), (64, 4)) == (("rows", "columns"),)
    assert mesh.spec((4800,), (64, 4)) == ("rows",)
    assert mesh.spec((7, 11), (64, 4)) == (None, None)
    assert mesh.spec((), (64, 4)) == ()
