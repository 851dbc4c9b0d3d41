import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmseg_ext.roads.polyline import cut, length, parts_of, points_at, project, stations

CORNER = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])  # 3 to the right, 4 down


def test_length_and_stations():
    assert stations(CORNER).tolist() == [0, 3, 7]
    assert length(CORNER) == 7


def test_points_at_distances_stay_on_the_line():
    # 5 from the start is 2 below the corner; beyond the ends are the ends
    points = points_at(CORNER, np.array([-1.0, 1.5, 3.0, 5.0, 99.0]))
    assert points.tolist() == [[0, 0], [1.5, 0], [3, 0], [3, 2], [3, 4]]


def test_parts_are_even_and_no_longer_than_asked():
    # 7 in pieces of at most 2: four of 1.75, with middles at 0.875, 2.625, 4.375, 6.125 along the line
    middles, lengths = parts_of(CORNER, 2.0)
    assert lengths.tolist() == [1.75] * 4
    assert middles.tolist() == [[0.875, 0], [2.625, 0], [3, 1.375], [3, 3.125]]


def test_a_line_shorter_than_the_spacing_is_one_part():
    middles, lengths = parts_of(CORNER, 100.0)
    assert lengths.tolist() == [7] and middles.tolist() == [[3, 0.5]]


def test_cut_keeps_the_vertices_between():
    assert cut(CORNER, 1.0, 5.0).tolist() == [[1, 0], [3, 0], [3, 2]]
    assert cut(CORNER, 3.0, 7.0).tolist() == [[3, 0], [3, 4]]


@pytest.mark.parametrize(
    ("point", "distance", "along"),
    [
        ([1.0, 2.0], 2.0, 1.0),  # 2 below the first segment, and as far from the second: the first found counts
        ([5.0, 3.0], 2.0, 6.0),  # beside the second segment, 3 below the corner
        ([-3.0, -4.0], 5.0, 0.0),  # before the start
        ([3.0, 9.0], 5.0, 7.0),  # beyond the end
    ],
)
def test_project(point, distance, along):
    assert project(CORNER, np.array(point)) == (distance, along)


def test_project_on_a_line_with_a_repeated_point():
    assert project(CORNER[[0, 0, 1]], np.array([1.0, 1.0])) == (1, 1)


COORDINATES = st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=2, max_size=8)


@given(COORDINATES, st.tuples(st.integers(-20, 20), st.integers(-20, 20)))
def test_project_finds_the_nearest_of_many_points_along_the_line(line, point):
    line, point = np.array(line, float), np.array(point, float)
    distance, along = project(line, point)
    foot = points_at(line, np.array([along]))[0]
    assert np.hypot(*(foot - point)) == pytest.approx(distance, abs=1e-9)
    sampled = points_at(line, np.linspace(0, length(line), 200))
    assert distance <= np.hypot(*(sampled - point).T).min() + 1e-9


@given(COORDINATES, st.floats(0.5, 30))
def test_parts_and_cuts_sum_up_to_the_line(line, spacing):
    line = np.array(line, float)
    _, lengths = parts_of(line, spacing)
    assert lengths.sum() == pytest.approx(length(line))
    assert lengths.max() <= spacing * (1 + 1e-9)
    at = length(line) / 3
    assert length(cut(line, 0, at)) + length(cut(line, at, length(line))) == pytest.approx(length(line))
