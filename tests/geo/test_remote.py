"""Rasters elsewhere: the same maps, few bytes, broken connections, one line for each mistake, and no secrets."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from bright_network import PLAIN, BrightNetwork
from file_server import serving

from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import (
    RasterSource,
    VectorLayer,
    public_name,
    raster_info,
    result_name,
    sources,
    stac_rasters,
    write_geotiff,
)
from mmseg_ext.geo.sources import fingerprint, is_remote, opened_as
from mmseg_ext.mapping import check_rasters, find_rasters, map_raster
from mmseg_ext.networks import extract_network
from mmseg_ext.scoring import FolderEvaluation, ScoringSettings, pair_predictions, summarise

UTM, PLACE = "EPSG:32719", (0.5, 0.0, 400_000.0, 0.0, -0.5, 7_400_000.0)
SIGNATURE, PASSWORD = "5ec2e7516na7u2e", "5ec2e7pa55w02d"
QUERY = f"?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={SIGNATURE}"
MAPS = ("_roads.tif", "_probability.tif", "_preview.png")


def cog(path, seed=0, side=256):
    """A Cloud-Optimized GeoTIFF of noise, which does not compress, in blocks of 128 px."""
    plain = str(path) + ".plain.tif"
    write_geotiff(plain, np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8), UTM, PLACE)
    rasterio.shutil.copy(plain, str(path), driver="COG", blocksize=128, compress="deflate", overviews="none")
    Path(plain).unlink()
    return str(path)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(sources, "_WAITS_S", (0.0,) * 5)
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture()
def server(tmp_path):
    (tmp_path / "www").mkdir()
    cog(tmp_path / "www" / "pit.tif")
    with serving(tmp_path / "www") as server:
        yield server


def digests(folder, name="pit"):
    return [hashlib.sha256((Path(folder) / f"{name}{ending}").read_bytes()).hexdigest() for ending in MAPS]


def mapped(path, folder, **options):
    map_raster(find_rasters([str(path)])[0], BrightNetwork(), str(folder), PLAIN, **options)
    return digests(folder)


@pytest.mark.parametrize(
    ("name", "public", "result", "opened"),
    [
        ("https://a/b/c%20d.tif", "https://a/b/c%20d.tif", "c_d", "/vsicurl/https://a/b/c%20d.tif"),
        ("HTTP://me:pw@a:1/c.tif?x=/1.b", "HTTP://a:1/c.tif", "c", "/vsicurl/http://me:pw@a:1/c.tif?x=/1.b"),
        ("s3://bucket/d/c.tif", "s3://bucket/d/c.tif", "c", "/vsis3/bucket/d/c.tif"),
        ("gs://bucket/c.tif", "gs://bucket/c.tif", "c", "/vsigs/bucket/c.tif"),
        ("az://box/c.tif?sig=1", "az://box/c.tif", "c", "/vsiaz/box/c.tif?sig=1"),
        ("/vsicurl/https://m:p@a/c.tif?s=1", "/vsicurl/https://a/c.tif", "c", "/vsicurl/https://m:p@a/c.tif?s=1"),
        (
            "/vsicurl?header.A=pw&url=https%3A%2F%2Fa%2Fc.tif%3Fs",
            "/vsicurl/https://a/c.tif",
            "c",
            "/vsicurl?header.A=pw&url=https%3A%2F%2Fa%2Fc.tif%3Fs",
        ),
        ("/vsizip//a.zip/c.tif", "/vsizip//a.zip/c.tif", "c", "/vsizip//a.zip/c.tif"),
    ],
)
def test_names_without_secrets_lead_back_to_what_gdal_opens(name, public, result, opened):
    assert is_remote(name) and public_name(name) == public_name(public) == public
    assert result_name(name) == result and opened_as(public) == opened_as(name) == opened


def test_files_are_no_addresses(tmp_path):
    for name in ("a.tif", "C:/a.tif", "https/a.tif", "roads.gpkg:layer", "a?b.tif"):
        assert not is_remote(name) and public_name(name) == name
    assert result_name("d/a.b?.tif") == "a.b?"


def test_the_map_is_that_of_the_file_though_connections_break(server, tmp_path, caplog):
    expected = mapped(server.folder / "pit.tif", tmp_path / "file")
    assert mapped(f"{server.address}/pit.tif", tmp_path / "http") == expected
    server.drops = 3
    assert mapped(f"/vsicurl/{server.address}/pit.tif?again", tmp_path / "drops") == expected
    server.drops, server.statuses = None, [503, 429, 500]
    assert mapped(f"{server.address}/pit.tif?busy", tmp_path / "busy") == expected
    record = json.loads((tmp_path / "http" / "pit.json").read_text())
    assert record["raster"]["path"] == f"{server.address}/pit.tif"


def test_an_area_of_five_percent_reads_little_more_than_its_blocks(server, tmp_path):
    cog(server.folder / "large.tif", 1, 1024)
    corner, side = 350, 229  # not at the edges of blocks; 5 % of the pixels
    area = rasterio.Affine(*PLACE) @ np.array([(corner, corner), (corner + side, corner + side)]).T
    polygons = VectorLayer("area", np.array([shapely.box(*np.sort(area).T.ravel())]), UTM, {}, np.arange(1))
    url = f"{server.address}/large.tif"
    map_raster(url, BrightNetwork(), str(tmp_path / "maps"), PLAIN, area=polygons)
    # tiles of 64 px reach up to 64 px beyond the area
    with rasterio.open(server.folder / "large.tif") as raster:
        blocks = range((corner - 64) // 128, (corner + side + 64) // 128 + 1)
        needed = sum(int(raster.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1)) for x in blocks for y in blocks)
    assert needed < 0.26 * (server.folder / "large.tif").stat().st_size
    assert 0.5 < server.sent / needed < 1.2


def test_a_map_is_kept_until_the_raster_changes_and_however_its_address_is_signed(server, tmp_path):
    url, out = f"{server.address}/pit.tif", str(tmp_path / "maps")
    made = map_raster(url + QUERY, BrightNetwork(), out, PLAIN)
    assert map_raster(url + "?X-Amz-Signature=renewed", BrightNetwork(), out, PLAIN) == json.loads(json.dumps(made))
    length, tag, _ = fingerprint(url)[1:]
    assert (int(length), len(tag)) == ((server.folder / "pit.tif").stat().st_size, 18)
    cog(server.folder / "pit.tif", 2)
    with pytest.raises(ConfigError, match=r"pit.json: is there already, of another raster"):
        map_raster(url, BrightNetwork(), out, PLAIN)


def test_secrets_are_nowhere(server, tmp_path, run_tool):
    """Neither in what a process of its own says, GDAL's C code included, nor in what it writes."""
    url = f"{server.address}/pit.tif{QUERY}".replace("://", f"://me:{PASSWORD}@")
    server.drops = 4
    done = run_tool(
        "predict.py",
        url,
        "--out",
        tmp_path / "maps",
        "--scale",
        "1",
        "--scales",
        "1",
        "--tile",
        "128",
        "--overlap",
        "32",
    )
    assert done.returncode == 0, done.stderr
    assert f"{server.address}/pit.tif: 256 x 256 px" in done.stderr
    written = [path.read_bytes() for path in (tmp_path / "maps").rglob("*") if path.is_file()]
    assert len(written) >= 6
    for text in (done.stdout.encode(), done.stderr.encode(), *written):
        assert not re.search(rf"{SIGNATURE}|{PASSWORD}|X-Amz".encode(), text)
    assert not [path for path in (tmp_path / "maps").rglob("*") if "Amz" in path.name]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (dict(statuses=[403] * 9), "access is denied; GDAL takes credentials from GDAL_HTTP_USERPWD or GDAL_HTTP_BEA"),
        (dict(statuses=[404] * 9), "is not there; check the address$"),
        (dict(statuses=[503] * 99), r"its server does not answer \(HTTP response code: 503\); check the address, or"),
        (dict(ranges=False), "its server sends no parts of files; fetch the file and give its path$"),
        (dict(cuts=[100] * 99), "cannot be read as a raster; check that the address is that of the file itself$"),
    ],
)
def test_each_mistake_is_one_line(server, capfd, fault, words):
    for name, value in fault.items():
        setattr(server, name, value)
    url = f"{server.address}/pit.tif"
    with pytest.raises(DataError, match=rf"^{url}: {words}") as refused:
        raster_info(url + QUERY)
    assert "\n" not in str(refused.value) and SIGNATURE not in "".join((str(refused.value), *capfd.readouterr()))


def test_pages_and_servers_that_are_gone_are_one_line(server):
    (server.folder / "403.tif").write_text("<html>log in</html>")
    with pytest.raises(DataError, match=r"403.tif: cannot be read as a raster; check that the address"):
        raster_info(f"{server.address}/403.tif")
    with pytest.raises(DataError, match=r"none of 2 rasters can .*404.tif: is not there.*403.tif: cannot be read"):
        check_rasters([f"{server.address}/404.tif", f"{server.address}/403.tif"], BrightNetwork(), PLAIN)
    with serving(server.folder) as gone:
        url = f"{gone.address}/pit.tif"
    with pytest.raises(DataError, match=r"pit.tif: its server does not answer \(Failed to connect to 127.*\); check"):
        raster_info(url)


def test_a_connection_that_is_broken_for_good_is_one_line(server):
    url = f"{server.address}/pit.tif"
    with RasterSource(url) as source:
        server.cuts = [0] * 99
        words = rf"^{url}: cannot be read in rows 0 to 255, the connection broke .*; re-run the command to resume$"
        with pytest.raises(DataError, match=words):
            source.read(0, 0, 256, 256)
        server.cuts = []
        sources.forget(url)
        with rasterio.open(server.folder / "pit.tif") as raster:
            assert np.array_equal(source.read(0, 0, 256, 256)[0], np.moveaxis(raster.read(), 0, 2))


def test_a_colour_table_elsewhere_is_looked_up(server):
    with rasterio.open(
        server.folder / "table.tif", "w", driver="GTiff", height=4, width=4, count=1, dtype="uint8"
    ) as table:
        table.write(np.arange(16, dtype=np.uint8).reshape(1, 4, 4))
        table.write_colormap(1, {value: (value, 2 * value, 255, 255) for value in range(16)})
    with RasterSource(f"{server.address}/table.tif{QUERY}", colours=True) as source:
        assert source.read(0, 0, 4, 4)[0][3, 3].tolist() == [15, 30, 255]


def test_networks_and_scores_take_maps_from_elsewhere(server):
    truth = np.zeros((200, 200), np.uint8)
    truth[90:110] = 1
    write_geotiff(str(server.folder / "roads.tif"), truth, UTM, PLACE)
    url = f"{server.address}/roads.tif"
    (pair,) = pairs = pair_predictions(url + QUERY, str(server.folder / "roads.tif"))
    assert pair.prediction == url
    totals = summarise(FolderEvaluation(pairs, ScoringSettings()).score())
    assert [total.pooled for total in totals if total.measure.key == "quality"] == [1]
    assert extract_network(url).edges["length_m"].sum() == pytest.approx(99, abs=2)


def test_stac_files_of_any_kind_lead_to_the_same_rasters(server, tmp_path):
    cog(server.folder / "b.tif", 3)
    pages = dict.fromkeys(("north", "south"))
    for name, href in (("north", "./pit.tif"), ("south", f"{server.address}/b.tif{QUERY}")):
        assets = dict(image=dict(href=href), thumbnail=dict(href="a.png"))
        pages[name] = dict(type="Feature", stac_version="1.0.0", id=f"mine {name}", assets=assets, links=[])
    pages["catalog"] = dict(type="Catalog", links=[dict(rel="child", href="collection.json")])
    links = [dict(rel="self", href="collection.json"), dict(rel="parent", href="catalog.json")]
    pages["collection"] = dict(
        type="Collection", links=[*links, *(dict(rel="item", href=f"./{n}.json") for n in ("north", "south"))]
    )
    next_page = dict(type="FeatureCollection", features=[pages["south"]], links=[])
    pages |= {"next": next_page, "empty": dict(type="FeatureCollection", features=[]), "other": dict(type="Point")}
    pages["search"] = dict(
        type="FeatureCollection", features=[pages["north"]], links=[dict(rel="next", href="next.json")]
    )
    for name, page in pages.items():
        (server.folder / f"{name}.json").write_text(json.dumps(page))
    expected = [f"{server.address}/pit.tif", f"{server.address}/b.tif"]
    for name in ("catalog", "collection", "search"):
        assert stac_rasters(f"{server.address}/{name}.json", "image") == expected
        local = [str(server.folder / "pit.tif"), expected[1]]
        assert stac_rasters(str(server.folder / f"{name}.json"), "image") == local
    assert [result_name(path) for path in (*expected, local[0])] == ["mine_north", "mine_south", "mine_north"]
    map_raster(expected[0], BrightNetwork(), str(tmp_path / "maps"), PLAIN)
    assert (tmp_path / "maps" / "mine_north_roads.tif").is_file()
    for name, asset, words in (
        (
            "collection",
            "pan",
            r"north.json: item mine north: has no asset pan; give --asset with one of image, thu",
        ),
        ("collection", None, r"item mine north: which asset is the raster is not said; give --asset with one of image"),
        ("empty", "image", r"empty.json: lists no item; give a STAC item"),
        ("other", "image", r"other.json: is no STAC item, collection or feature collection; give one$"),
        ("none", "image", r"none.json: cannot be read \(404\); check the address$"),
        ("pit.tif?", "image", r"pit.tif: is no JSON; give a STAC item"),
    ):
        with pytest.raises(DataError, match=words):
            stac_rasters(f"{server.address}/{name}.json", asset)


def test_two_of_one_name_are_refused(server):
    with pytest.raises(ConfigError, match=r"https://a/x.tif and https://b/x.tif: both are called x; map them into two"):
        find_rasters(["https://a/x.tif?s=1", "https://b/x.tif"])


def test_maps_from_s3_are_those_of_the_file(server, tmp_path, monkeypatch):
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    import boto3

    s3 = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    try:
        host = ":".join(map(str, s3.get_host_and_port()))
        settings = dict(AWS_S3_ENDPOINT=host, AWS_HTTPS="NO", AWS_VIRTUAL_HOSTING="FALSE", AWS_REGION="us-east-1")
        for name, value in (settings | dict(AWS_ACCESS_KEY_ID="id", AWS_SECRET_ACCESS_KEY="key")).items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=f"http://{host}", region_name="us-east-1")
        client.create_bucket(Bucket="mines")
        client.upload_file(str(server.folder / "pit.tif"), "mines", "north/pit.tif")
        expected = mapped(server.folder / "pit.tif", tmp_path / "file")
        assert mapped("s3://mines/north/pit.tif", tmp_path / "s3") == expected
        before = fingerprint("s3://mines/north/pit.tif")
        assert int(before[1]) == (server.folder / "pit.tif").stat().st_size
        client.upload_file(cog(tmp_path / "b.tif", 5), "mines", "north/pit.tif")
        sources.forget("s3://mines/north/pit.tif")
        assert fingerprint("s3://mines/north/pit.tif")[2] != before[2]
        with pytest.raises(DataError, match=r"^s3://mines/none.tif: is not there; check the address$"):
            raster_info("s3://mines/none.tif")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        with pytest.raises(DataError, match=r"^s3://mines/c.tif: access is denied; .* AWS_ACCESS_KEY_ID and"):
            raster_info("s3://mines/c.tif")
    finally:
        s3.stop()
