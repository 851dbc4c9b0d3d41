"""Networks of exact masks against the exact centrelines of the mines that they show."""

import networkx as nx
import numpy as np
import pytest
import shapely

from mmseg_ext.datasets.synthetic_mine import generate_mine
from mmseg_ext.metrics.apls import apls
from mmseg_ext.networks import NetworkSettings, extract_network
from mmseg_ext.roads import graph_from_lines

_GSD_M, _SIZE_PX = 0.75, 1000
_JOINS_M = 6.0  # a road that ends so near to another one's centreline begins there


def centrelines(mine):
    """Return the roads of a mine inside its image, parted where they meet, y upwards as on the raster's map."""
    lines = [shapely.LineString(road.xy_m * (1, -1)) for road in mine.roads]
    joints = []
    for line in lines:
        others = shapely.union_all([other for other in lines if other is not line])
        for end in (line.interpolate(0), line.interpolate(line.length)):
            joint = shapely.shortest_line(end, others)
            joints += [joint] * (0 < joint.length < _JOINS_M)
    whole = shapely.union_all([*lines, *joints], grid_size=0.01)
    inside = whole.intersection(shapely.box(0, -_SIZE_PX * _GSD_M, _SIZE_PX * _GSD_M, 0))
    return [part for part in shapely.get_parts(inside) if part.length > 0.01]


def graph_of(lines):
    return graph_from_lines([np.array(line.coords) for line in lines], snap=0.5)


def shape_of(graph):
    """Return how many components, cycles, junctions and dead ends a graph has."""
    components = nx.number_connected_components(graph)
    degrees = [degree for _, degree in graph.degree()]
    cycles = graph.number_of_edges() - graph.number_of_nodes() + components
    return components, cycles, sum(degree > 2 for degree in degrees), degrees.count(1)


# one after the other; in mine 9 two haul roads run side by side, with one surface
@pytest.mark.parametrize("seed", [0, 1, 2, 3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 9))])
def test_the_network_of_a_mine_is_that_of_its_centrelines(raster, seed):
    mine = generate_mine(seed, _SIZE_PX, _GSD_M)
    layers = extract_network(raster(mine.mask, transform=(_GSD_M, 0, 0, 0, -_GSD_M, 0)), NetworkSettings(tile_px=400))
    truth, found = centrelines(mine), list(layers.edges.geometry)
    true_graph, graph = graph_of(truth), graph_of(found)

    tolerance = min(road.width_m.min() for road in mine.roads) / 2
    true_area, area = (shapely.union_all(lines).buffer(tolerance) for lines in (truth, found))
    true_length, length = (shapely.length(lines).sum() for lines in (truth, found))
    assert sum(line.intersection(true_area).length for line in found) / length > 0.97
    assert sum(line.intersection(area).length for line in truth) / true_length > 0.97
    assert length == pytest.approx(true_length, rel=0.01)
    assert layers.edges["length_m"].sum() == pytest.approx(length)
    assert apls(graph, true_graph).apls > 0.95
    assert shape_of(graph) == shape_of(true_graph)
    kinds = layers.nodes["kind"].value_counts()
    assert (kinds["junction"], kinds.get("end", 0) + kinds["border"]) == shape_of(true_graph)[2:]

    # where one road alone is near, its width
    errors = []
    for road in mine.roads:
        others = [other.xy_m for other in mine.roads if other is not road]
        far = np.array([min(np.hypot(*(xy - place).T).min() for xy in others) > 60 for place in road.xy_m])
        for edge in layers.edges.itertuples():
            near = shapely.dwithin(edge.geometry, shapely.points(road.xy_m * (1, -1)), tolerance) & far
            if near.sum() * 2 > 0.8 * edge.geometry.length:
                errors.append(edge.width_median_m / np.median(road.width_m[near]) - 1)
    assert errors
    assert max(map(abs, errors)) < 0.1
