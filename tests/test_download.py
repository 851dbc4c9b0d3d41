"""Files by URL and hash, from a server on this machine that cuts, lies and changes its mind."""

import multiprocessing
import os
import threading
import time

import numpy as np
import pytest
from file_server import serving

from mmseg_ext import download
from mmseg_ext.download import is_url, local_file, sha256_of, states_hash
from mmseg_ext.errors import CheckpointError
from mmseg_ext.files import CACHE_VARIABLE

BODY = np.random.default_rng(0).bytes(1_000_000)


@pytest.fixture()
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(download, "_WAITS_S", (0.0,) * 4)
    return tmp_path / "cache" / "downloads"


@pytest.fixture()
def server(tmp_path, cache):
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "a.bin").write_bytes(BODY)
    with serving(tmp_path / "www") as server:
        yield server


def content(path):
    with open(path, "rb") as file:
        return file.read()


def left(cache):
    """Return the files of the cache but for locks."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.name != ".lock")


def test_what_is_a_url():
    assert is_url("https://a/b") and is_url("HTTP://a") and not is_url("httpsdocs/a.pth") and not is_url("s3://a/b")
    assert states_hash("https://a/b#SHA256=0") and not states_hash("https://a/b#x") and not states_hash("a#sha256=0")
    assert local_file("a/b#sha256=0.pth") == "a/b#sha256=0.pth"


def test_a_file_is_fetched_once_and_kept_by_its_hash(server, cache):
    url = server.url("a.bin")
    path = local_file(url)
    assert content(path) == BODY and os.path.basename(path) == "a.bin"
    assert sha256_of(path) == url[-64:] == os.path.basename(os.path.dirname(path))
    assert local_file(url.replace("#", "?token=1#").upper().replace("A.BIN", "a.bin").replace("HTTP", "http")) == path
    assert server.requests == [None] and left(cache) == ["a.bin"]
    with open(path, "r+b") as file:
        file.write(b"flipped")
    assert content(local_file(url)) == BODY and len(server.requests) == 2


@pytest.mark.parametrize("tags", [True, False])
def test_a_cut_download_goes_on_where_it_was(server, cache, tags):
    server.tags, server.cuts = tags, [300_000, 200_000, 1]
    assert content(local_file(server.url("a.bin"))) == BODY
    assert server.requests == [None, "bytes=300000-", "bytes=500000-", "bytes=500001-"]
    assert left(cache) == ["a.bin"]


def test_a_server_without_ranges_sends_everything_again(server, cache):
    server.ranges, server.cuts = False, [700_000, 10]
    assert content(local_file(server.url("a.bin"))) == BODY
    assert server.requests == [None, "bytes=700000-", "bytes=10-"]


@pytest.mark.parametrize("tags", [True, False])
def test_a_file_that_changed_in_the_middle_is_fetched_from_its_start(server, cache, tags):
    url, server.tags = server.url("a.bin"), tags
    (server.folder / "a.bin").write_bytes(b"older" * 100_000)
    server.cuts = [400_000] + [0] * 5
    with pytest.raises(CheckpointError, match=r"a.bin: cannot be fetched \(the connection broke after .* resume$"):
        local_file(url)
    (server.folder / "a.bin").write_bytes(BODY)
    assert content(local_file(url)) == BODY
    assert server.requests[6:] == (["bytes=400000-"] if tags else ["bytes=400000-", None])


def test_another_file_is_refused_and_not_kept(server, cache):
    url = server.url("a.bin")
    (server.folder / "a.bin").write_bytes(b"<html>log in</html>")
    found = server.url("a.bin")[-64:]
    with pytest.raises(CheckpointError, match=rf"a.bin: is another file, with SHA-256 {found}; nothing was kept"):
        local_file(url)
    assert server.requests == [None] and left(cache) == []


def test_what_may_pass_is_tried_again_and_what_may_not_is_said_at_once(server, cache):
    server.statuses = [503, 429, 500]
    assert content(local_file(server.url("a.bin"))) == BODY and len(server.requests) == 4
    none = f"{server.address}/b.bin#sha256={'0' * 64}"
    with pytest.raises(CheckpointError, match=r"b.bin: cannot be fetched \(404 Not Found\); check the address$"):
        local_file(none)
    server.statuses = [503] * 9
    with pytest.raises(CheckpointError, match=r"\(503 Service Unavailable\); try again later$"):
        local_file(none)
    assert len(server.statuses) == 4


def test_a_server_that_is_gone_is_one_line(server, cache, tmp_path):
    with serving(tmp_path / "www") as gone:
        url = gone.url("a.bin")
    with pytest.raises(CheckpointError, match=r"a.bin: cannot be fetched \(.*refused.*\); try again later$"):
        local_file(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://a/b.pth", r"^https://a/b.pth: a URL must state the SHA-256 of its file: add #sha256="),
        ("https://a/b.pth#sha256=12", r"b.pth#sha256=12: a URL must state the SHA-256"),
        ("http://a/b.pth", r"^http://a/b.pth: only https is read; http is for servers on this machine"),
        ("http://localhost.evil.org/b", "only https is read"),
        ("https://me:secret@a/b.pth", r"^https://a: addresses with a user name are not read"),
        ("https://a:x/b.pth", r"is no address"),
        ("https:///b.pth", r"is no address \(it names no server\)"),
    ],
)
def test_addresses_that_are_refused(cache, url, words):
    with pytest.raises(CheckpointError, match=words) as refused:
        local_file(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://example.org/a.bin", "ftp://example.org/a.bin"])
def test_redirections_to_what_is_not_safe_are_not_followed(server, cache, target):
    url, server.redirect = server.url("a.bin"), target
    with pytest.raises(CheckpointError, match=r"a.bin: (redirects to|cannot be fetched \(302)"):
        local_file(url)
    with pytest.raises(CheckpointError, match=r"https://a/b: redirects to http://localhost/a, which is not fetched"):
        download._check("http://localhost/a", "https://a/b")


def test_files_of_absurd_size_are_refused(server, cache, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 900_000)
    with pytest.raises(CheckpointError, match=r"a.bin: is larger than .* GiB; fetch it yourself$"):
        local_file(server.url("a.bin"))
    assert left(cache) == []


def test_names_stay_in_their_folder(server, cache):
    (server.folder / "..%2f..%2fc d.pth").write_bytes(BODY)
    path = local_file(server.url("..%2f..%2fc d.pth"))
    assert os.path.basename(path) == "c_d.pth" and content(path) == BODY


def test_a_cache_that_cannot_be_written_is_one_line(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match=f"cannot be written .*; name another folder in {CACHE_VARIABLE}$"):
        local_file(server.url("a.bin"))


def test_threads_that_come_together_fetch_once(server, cache):
    url, paths = server.url("a.bin"), []
    threads = [threading.Thread(target=lambda: paths.append(local_file(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1 and len(paths) == 4 and server.requests == [None]


@pytest.mark.parametrize("held", [600_000, len(BODY)])
def test_a_killed_process_is_followed_by_one_that_resumes(server, cache, held):
    """The second kill hits when all has arrived, so nothing is asked for again but what is missing."""
    url, server.hold = server.url("a.bin"), min(held, len(BODY) - 1)
    begin = multiprocessing.get_context("fork").Process
    first = begin(target=local_file, args=(url,))
    first.start()
    partial = cache / url[-64:] / ".a.bin.partial"
    deadline = time.monotonic() + 60
    while (partial.stat().st_size if partial.is_file() else 0) < server.hold:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.kill()
    first.join()
    assert not (cache / url[-64:] / "a.bin").exists()
    expected, server.hold = f"bytes={server.hold}-", None
    if held == len(BODY):
        partial.write_bytes(BODY)
    second = begin(target=local_file, args=(url,))
    second.start()
    second.join(60)
    assert second.exitcode == 0
    assert server.requests == [None, expected][: 2 if held < len(BODY) else 1]
    assert content(cache / url[-64:] / "a.bin") == BODY and left(cache) == ["a.bin"]
