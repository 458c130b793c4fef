"""How weights are cut over the devices of a TPU slice: a mesh of rows x columns, chosen from the shapes at hand.

Devices form a rectangle because one number rarely fits: 1.5B's widths, 1,600 and 4,800, divide by 64 and not by 256, and what does
not divide stays whole on every device. Over 64 x 4 a matrix is cut 64 ways along one side and 4 ways along the other.
"""

import math
from collections.abc import Iterator, Mapping

ROWS, COLUMNS = "rows", "columns"
Mesh = tuple[int, int]  # rows, columns
Axis = str | tuple[str, str] | None  # what cuts a dimension: one side of the mesh, both of them, or nothing


def choose(shapes: Mapping[str, tuple[int, ...]], devices: int) -> Mesh:
    """The mesh that leaves the fewest numbers on a device; of equals the one with the fewest columns."""
    meshes = [(devices // columns, columns) for columns in range(1, devices + 1) if devices % columns == 0]
    return min(meshes, key=lambda mesh: (numbers_per_device(shapes, mesh), mesh[1]))


def spec(shape: tuple[int, ...], mesh: Mesh) -> tuple[Axis, ...]:
    """What cuts each dimension of a tensor, so that the least is left on a device; of equals the first way of `ways`."""
    return min(ways(shape, mesh), key=lambda way: left(shape, way, mesh))


def numbers_per_device(shapes: Mapping[str, tuple[int, ...]], mesh: Mesh) -> int:
    return sum(left(shape, spec(shape, mesh), mesh) for shape in shapes.values())


def ways(shape: tuple[int, ...], mesh: Mesh) -> Iterator[tuple[Axis, ...]]:
    """Every way to cut a tensor evenly: each side of the mesh cuts one dimension or none."""
    for cut_by_rows in (*range(len(shape)), None):
        for cut_by_columns in (*reversed(range(len(shape))), None):
            way = tuple(
                (ROWS, COLUMNS) if n == cut_by_rows == cut_by_columns else ROWS if n == cut_by_rows else COLUMNS if n == cut_by_columns else None
                for n in range(len(shape))
            )  # fmt: skip
            if all(size % parts(axis, mesh) == 0 for size, axis in zip(shape, way, strict=True)):
                yield way


def parts(axis: Axis, mesh: Mesh) -> int:
    """Into how many a dimension is cut."""
    size = {ROWS: mesh[0], COLUMNS: mesh[1]}
    return math.prod(size[side] for side in (axis if isinstance(axis, tuple) else (axis,) if axis else ()))


def left(shape: tuple[int, ...], way: tuple[Axis, ...], mesh: Mesh) -> int:
    """Numbers of a tensor on each device."""
    return math.prod(size // parts(axis, mesh) for size, axis in zip(shape, way, strict=True))
