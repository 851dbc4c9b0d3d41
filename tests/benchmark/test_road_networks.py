import pytest


@pytest.mark.slow
def test_the_network_of_many_mines_is_measured(run_tool):
    done = run_tool("benchmark/road_networks.py", 1000, 2300)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["1,000 x 1,000", "2,300 x 2,300"]
    assert int(rows[1][2]) > int(rows[0][2]) > 0
    assert all(row[-1].endswith(" GiB") and float(row[-1].split()[0]) < 3 for row in rows)
