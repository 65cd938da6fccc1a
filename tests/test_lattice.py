# SPDX-License-Identifier: Apache-2.0
"""The lattice: where output slices lie among the input slices, on integer and real factors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scripts import lattice
from scripts.errors import InputError

FACTORS = [2, 8, 6.5, 2.4, 10 / 3, 7.0175, 1.0001]


@pytest.mark.parametrize(
    "slices, factor, expected",
    [
        (21, 6.5, 131),
        (17, 8, 129),
        (2, 8, 9),
        (7, 10 / 3, 21),
        (4, 10 / 3, 11),
        (11, 2.4, 25),
        (101, 1.1, 111),  # 100 * 1.1 is 110.00000000000001
        (31, 2.3, 70),  # 30 * 2.3 is 69 but 68.99999999999999 in floating point
        (1, 8, 1),
    ],
)
def test_output_size(slices, factor, expected):
    assert lattice.output_size(slices, factor) == expected
    assert len(lattice.positions(slices, factor)) == expected


@pytest.mark.parametrize("factor", [2, 5, 8])
def test_integer_factor_finds_every_original_again(factor):
    places = lattice.positions(9, factor)
    for i in range(9):
        assert places[i * factor] == (i, 0.0)
    assert lattice.kept_indices(9, factor) == list(range(0, 8 * factor + 1, factor))
    assert places[factor + 1] == (1, pytest.approx(1 / factor))


def test_fractional_factor_is_not_rounded():
    places = lattice.positions(21, 6.5)
    assert places[6] == pytest.approx((0, 6 / 6.5))
    assert places[7] == pytest.approx((1, 0.5 / 6.5))
    assert lattice.kept_indices(21, 6.5) == list(range(0, 131, 13))


@pytest.mark.parametrize("factor", [10 / 3, 2.3, 1.1])
def test_rounding_of_the_machine_does_not_lose_originals(factor):
    """Where i * r is whole the slice is kept, whichever side of it floating point falls on."""
    slices = 61
    whole = [round(i * factor) for i in range(slices) if abs(i * factor - round(i * factor)) < 1e-9]
    assert len(whole) > 5
    assert lattice.kept_indices(slices, factor) == whole


@pytest.mark.parametrize("factor", FACTORS)
def test_positions_walk_the_whole_axis_once(factor):
    slices = 12
    places = lattice.positions(slices, factor)
    along = [place.interval + place.relative_depth for place in places]
    assert along == pytest.approx([j / factor for j in range(len(places))], abs=1e-5)
    assert along[0] == 0
    assert slices - 1 - 1 / factor < along[-1] <= slices - 1
    assert all(0 <= place.relative_depth < 1 for place in places)
    assert {place.interval for place in places} >= set(range(slices - 1))
    # Depth above 0 always has a slice on either side.
    assert all(place.interval <= slices - 2 for place in places if place.relative_depth > 0)


@pytest.mark.parametrize("nearly", [8 - 1e-9, 8 + 1e-9])
def test_factor_a_rounding_error_from_an_integer_acts_as_the_integer(nearly):
    places = lattice.positions(20, nearly), lattice.positions(20, 8)
    np.testing.assert_allclose(*places, rtol=0, atol=1e-6)
    assert lattice.kept_indices(20, nearly) == lattice.kept_indices(20, 8)


def test_factor_close_to_an_integer_is_still_itself():
    assert lattice.output_size(20, 7.99) == 152
    assert lattice.kept_indices(20, 7.99) == [0]


def test_windows_repeat_the_edge_slice():
    assert [lattice.window(i, 5) for i in range(4)] == [[0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 4]]
    assert lattice.window(0, 2) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "slices, factor, expected",
    [
        (3, 4, [(0, 0, True), (4, 4, True), (8, 8, True)]),
        (4, 2.5, [(0, 0, True), (2.5, 2, False), (5, 5, True), (7.5, 7, False)]),  # the last lies beyond the output
        (4, 10 / 3, [(0, 0, True), (10 / 3, 3, False), (20 / 3, 7, False), (10, 10, True)]),
        (3, 1.0001, [(0, 0, True), (1.0001, 1, False), (2.0002, 2, False)]),
    ],
)
def test_where_input_slices_lie_in_the_output(slices, factor, expected):
    assert lattice.recorded_slices(slices, factor) == [(pytest.approx(at), *rest) for at, *rest in expected]


@pytest.mark.parametrize("factor", FACTORS)
def test_input_slices_that_coincide_are_those_that_are_kept(factor):
    found = lattice.recorded_slices(40, factor)
    assert [each.nearest for each in found if each.coincides] == lattice.kept_indices(40, factor)


@pytest.mark.parametrize(
    "size, factor, expected",
    [(17, 8, [0, 8, 16]), (24, 8, [0, 8, 16]), (20, 6.5, [0, 6, 13]), (11, 10 / 3, [0, 3, 7, 10]), (8, 8, [0])],
)
def test_decimated_indices(size, factor, expected):
    assert lattice.decimated_indices(size, factor) == expected


@pytest.mark.parametrize("factor", FACTORS[:-1])
def test_decimating_the_output_counts_the_input(factor):
    for slices in (2, 9, 40):
        size = lattice.output_size(slices, factor)
        indices = lattice.decimated_indices(size, factor)
        assert indices[-1] < size
        # A fractional factor may end between two input slices: then the last one lies beyond the output.
        whole = abs((slices - 1) * factor - (size - 1)) < 1e-6
        assert len(indices) == (slices if whole else slices - 1)


@pytest.mark.parametrize("factor", [1, 0, -3, 0.5, math.nan, math.inf, None, "eight", [8]])
def test_check_factor_refuses(factor):
    with pytest.raises(InputError, match="--factor .* above 1") as caught:
        lattice.check_factor(factor)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("factor, expected", [(8, 8.0), ("6.5", 6.5), (1.01, 1.01)])
def test_check_factor_keeps_real_numbers(factor, expected):
    assert lattice.check_factor(factor) == expected


@pytest.mark.parametrize("spacing, expected", [((8, 8, 64), 8), ((0.01, 0.01, 0.065), 6.5), ((4, 9, 30), 5)])
def test_isotropic_factor(spacing, expected):
    assert lattice.isotropic_factor(spacing) == pytest.approx(expected)


def test_isotropic_factor_forgives_single_precision():
    """NIfTI stores voxel sizes in single precision; 0.04 / 0.005 must still be 8 after a thousand slices."""
    spacing = [float(np.float32(s)) for s in (0.005, 0.005, 0.04)]
    assert lattice.output_size(1001, lattice.isotropic_factor(spacing)) == 8001


@pytest.mark.parametrize("lateral, axial", [(3, 10), (3, 20), (6, 40)])
def test_isotropic_factor_of_thirds_keeps_the_last_slice(lateral, axial):
    factor = lattice.isotropic_factor((lateral, lateral, axial))
    assert lattice.output_size(61, factor) == 60 * axial // lateral + 1
    assert len(lattice.kept_indices(61, factor)) == 21


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 2, 1), (1, 1, 1 + 1e-9)])
def test_isotropic_volume_is_refused(spacing):
    with pytest.raises(InputError, match="--factor.*--spacing"):
        lattice.isotropic_factor(spacing)


def test_affine_keeps_the_origin_and_divides_z():
    affine = np.array([[2, 0, 0, 5], [0, -3, 0, 6], [0, 0, 32, 7], [0, 0, 0, 1]], float)
    refined = lattice.refined_affine(affine, 6.4)
    assert refined[:3, 3].tolist() == [5, 6, 7]
    assert lattice.voxel_size(refined) == pytest.approx((2, 3, 5))
    # Output slice j stands where j / r input slices stand.
    point = np.array([3, 4, 2, 1.0])
    assert refined @ (point * [1, 1, 6.4, 1]) == pytest.approx(affine @ point)
    assert lattice.coarsened_affine(refined, 6.4) == pytest.approx(affine)
    assert lattice.refined_affine(affine[None], 6.4)[0] == pytest.approx(refined)
    assert affine[2, 2] == 32


@pytest.mark.parametrize(
    "size, tile, expected",
    [
        (37, 128, [(0, 37, 0, 37)]),
        (128, 128, [(0, 128, 0, 128)]),
        (
            200,
            176,
            [(0, 200, 0, 200)],
        ),  # a tile of 176 whose last cell is that of the plane has 200 voxels, and is the plane
        (520, 512, [(0, 520, 0, 520)]),
        (520, 480, [(0, 328, 0, 260), (192, 520, 260, 520)]),
        (544, 512, [(0, 352, 0, 272), (192, 544, 272, 544)]),
        (300, 200, [(0, 204, 0, 118), (32, 236, 118, 166), (96, 300, 166, 300)]),
        (
            310,
            160,
            [(0, 182, 0, 107), (32, 214, 107, 139), (64, 246, 139, 171), (96, 278, 171, 203), (128, 310, 203, 310)],
        ),
    ],
)
def test_tiles(size, tile, expected):
    assert lattice.tiles((0, size), size, tile, 64, 32) == expected


def test_tiles_of_a_part_reach_over_it_but_not_over_the_plane():
    assert lattice.tiles((272, 520), 520, 352, 64, 32) == [(192, 520, 272, 520)]
    assert lattice.tiles((272, 520), 520, 256, 64, 32) == [(192, 424, 272, 356), (288, 520, 356, 520)]
    assert lattice.tiles((100, 110), 520, 256, 64, 32) == [(32, 200, 100, 110)]


def check_tiles(part: tuple[int, int], size: int, tile: int, halo: int) -> None:
    """What has to hold for each cut, for a network with cells of 32 pixels to find the same cells in a tile as in the
    plane."""
    spans = lattice.tiles(part, size, tile, halo, 32)
    where = part, size, tile, halo, spans
    borders = [spans[0].core_begin, *(span.core_end for span in spans)]
    assert (borders[0], borders[-1]) == part, where
    assert all(span.core == core and core[0] < core[1] for span, core in zip(spans, zip(borders, borders[1:]))), where
    sides = {span.end - span.begin for span in spans}
    assert len(sides) == 1, where  # on CUDA work is recorded for one
    assert sides.pop() <= lattice.padded_size(tile, 32) + 31, where
    for begin, end, core_begin, core_end in spans:
        assert begin % 32 == 0 and (size - end) % 32 == 0, where  # on the grid from either end of the plane
        assert 0 <= begin <= max(0, core_begin - halo), where
        assert min(size, core_end + halo) <= end <= size, where


@pytest.mark.parametrize("halo", [0, 32, 64])
def test_cells_of_every_tile_are_those_of_the_plane(halo):
    for size in range(1, 401):
        for tile in {2 * halo + 1, *range(2 * halo + 32, 450, 16)}:
            check_tiles((0, size), size, tile, halo)


@pytest.mark.parametrize("halo", [0, 20, 32, 64, 100])
def test_cores_are_the_part_and_lie_inside_their_tiles(halo):
    random = np.random.default_rng(0)
    reach = lattice.padded_size(halo, 32)
    for size in range(1, 3000, 13):
        begin = int(random.integers(0, size))
        for part in ((0, size), (begin, int(random.integers(begin + 1, size + 1)))):
            for tile in (lattice.smallest_tile(halo, 32), 2 * reach + 70, 512):
                check_tiles(part, size, tile, reach)


def test_parts_of_a_tile_lie_within_it():
    """Where memory did not hold a tile, its parts are never larger."""
    for size in range(150, 400, 3):
        for whole in lattice.tiles((0, size), size, 224, 64, 32):
            parts = lattice.tiles(whole.core, size, 160, 64, 32)
            assert all(whole.begin <= part.begin and part.end <= whole.end for part in parts), (size, whole, parts)


def test_tile_that_is_all_margin_is_refused():
    with pytest.raises(InputError, match="--tile 128: .* at least 160, or a smaller --halo"):
        lattice.tiles((0, 520), 520, 128, 64, 32)
    assert lattice.smallest_tile(64, 32) == 160
    assert lattice.tiles((0, 100), 100, 128, 64, 32) == [(0, 100, 0, 100)]  # one tile needs no margin


@pytest.mark.parametrize(
    "size, factor, covered, kept", [(25, 8, 25, 4), (30, 8, 25, 4), (11, 2.5, 11, 3), (12, 2.5, 11, 3)]
)
def test_fine_axis_and_the_slices_kept_of_it(size, factor, covered, kept):
    assert lattice.covered_size(size, factor) == covered
    found = lattice.kept_among(size, factor)
    assert len(found) == kept and all((index / factor).is_integer() for index in found)


@pytest.mark.parametrize("factor", [2, 2.5, 10 / 3])
@pytest.mark.parametrize("intervals", [1, 3, 100])
def test_blocks_of_boxes_make_up_the_output_once(factor, intervals):
    shape = (70, 40, 9)
    fine = (*shape[:2], lattice.output_size(9, factor))
    count = np.zeros(fine, int)
    for box in lattice.boxes(fine, (32, 24, 7)):
        for block in lattice.blocks(shape, 512, 32, 32, intervals, factor, box):
            assert block.last - block.first <= intervals
            output = block.output(factor)
            assert all(begin <= side.start < side.stop <= end for side, (begin, end) in zip(output, box))
            count[output] += 1
    assert (count == 1).all()
