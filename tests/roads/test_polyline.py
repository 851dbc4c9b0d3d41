import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmseg_ext.roads.polyline import cut, length, parts_of, points_at, project, smooth_line, stations

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


def anywhere(xy):
    return np.full(len(xy), np.inf)


def test_a_smooth_line_is_the_one_of_least_squares_with_a_penalty_on_bends():
    rng = np.random.default_rng(0)
    line = np.cumsum(rng.normal(size=(60, 2)), axis=0)
    count = int(np.ceil(length(line)))
    even = points_at(line, np.linspace(0, length(line), count + 1))
    bends = np.diff(np.eye(count + 1), 2, axis=0)
    inner = slice(1, -1)
    # the same with full matrices, the ends known
    system = np.eye(count + 1) + (20 / (2 * np.pi)) ** 4 * bends.T @ bends
    known = even[inner] - system[inner, [0]] * even[0] - system[inner, [-1]] * even[-1]
    expected = np.linalg.solve(system[inner, inner], known)
    found = smooth_line(line, 20.0, anywhere)
    assert found[inner] == pytest.approx(expected, abs=0.003)  # 1/256 of a pixel
    assert (found[[0, -1]] == line[[0, -1]]).all()


@pytest.mark.parametrize(("wave", "left"), [(40.0, 1 / 2), (80.0, 16 / 17), (20.0, 1 / 17), (400.0, 1)])
def test_waves_lose_amplitude_by_their_length(wave, left):
    x = np.arange(0, 2001.0)
    line = np.stack([x, 0.5 * np.sin(2 * np.pi * x / wave)], axis=1)
    found = smooth_line(line, 40.0, anywhere)
    middle = (found[:, 0] > 500) & (found[:, 0] < 1500)
    assert np.abs(found[middle, 1]).max() == pytest.approx(0.5 * left, abs=0.02)


def test_straight_lines_short_lines_and_no_wavelength_change_nothing():
    straight = np.array([[0.0, 0.0], [60.0, 80.0]])
    found = smooth_line(straight, 50.0, anywhere)
    assert len(found) == 101 and project(straight, found[37])[0] < 0.003
    for line, wavelength in ((CORNER / 3, 50.0), (CORNER, 0.0)):
        assert smooth_line(line, wavelength, anywhere) is line


def test_a_long_line_takes_any_wavelength():
    line = np.cumsum(np.random.default_rng(0).integers(-1, 2, (100_000, 2)), axis=0).astype(float)
    found = smooth_line(line, 1e9, anywhere)
    assert np.isfinite(found).all() and (found[[0, -1]] == line[[0, -1]]).all()
    assert length(found) < 0.1 * length(line)


@given(st.integers(0, 1000), st.floats(5, 1e6))
def test_no_point_moves_farther_than_it_may(seed, wavelength):
    rng = np.random.default_rng(seed)
    line = np.cumsum(rng.integers(-1, 2, (150, 2)), axis=0).astype(float)
    limits = rng.uniform(0, 2, int(np.ceil(length(line))) + 1) * rng.integers(0, 2)
    found = smooth_line(line, wavelength, lambda xy: limits)
    if found is not line:
        even = points_at(line, np.linspace(0, length(line), len(found)))
        moved = np.hypot(*(found - even).T)
        assert (moved[1:-1] <= limits[1:-1] + 1 / 256).all() and not moved[[0, -1]].any()


def test_a_ring_stays_closed_round_and_as_large_wherever_it_begins():
    angle = np.linspace(0, 2 * np.pi, 401)
    ring = (30 * np.stack([np.cos(angle), np.sin(angle)], axis=1)).round()
    for start in (0, 130):
        line = np.roll(ring[:-1], start, axis=0)
        found = smooth_line(np.concatenate([line, line[:1]]), 40.0, anywhere, ring=True)
        assert (found[0] == found[-1]).all()
        away = np.hypot(*found.T)
        assert np.abs(away - 30).max() < 0.4 and np.ptp(away) < 0.5
        assert length(found) == pytest.approx(2 * np.pi * 30, rel=0.01)
        before = np.diff(np.concatenate([ring, ring[1:2]]), axis=0)
        turns = [np.abs(np.diff(np.unwrap(np.arctan2(*step[step.any(axis=1)].T)))).sum() for step in (before, np.diff(found, axis=0))]  # fmt: skip  # noqa: E501
        assert turns[1] < 1.1 * 2 * np.pi < turns[0]
