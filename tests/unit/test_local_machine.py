"""tofu/local's helper without OpenTofu or QEMU guests: the image, the checks, and what it says when it cannot go on."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

HELPER = Path(__file__).resolve().parents[2] / "tofu" / "local" / "machine.py"
NOWHERE = "http://127.0.0.1:9"  # "discard": nothing listens there


@dataclass
class Mirror:
    """A web server with Debian's layout, which can break off in the middle."""

    files: dict[str, bytes]
    cut_after: int = 0
    broken_chunk: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    url: str = ""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    image = os.urandom(3_000_000)
    sums = f"{hashlib.sha512(image).hexdigest()}  debian-12-genericcloud-{{}}.qcow2\n"
    made = Mirror({"SHA512SUMS": b""})
    for architecture in ("amd64", "arm64"):
        made.files[f"debian-12-genericcloud-{architecture}.qcow2"] = image
        made.files["SHA512SUMS"] += sums.format(architecture).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            wanted = self.headers.get("Range", "")
            made.asked.append((name, wanted))
            body = made.files[name]
            begin = int(re.sub(r"\D", "", wanted) or 0)
            self.send_response(206 if begin else 200)
            if made.broken_chunk and name.endswith(made.broken_chunk):
                made.broken_chunk = ""
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"%x\r\n" % len(body) + body[:10])
                return
            self.send_header("Content-Length", str(len(body) - begin))
            self.end_headers()
            if made.cut_after and name.endswith("qcow2"):
                body = body[: begin + made.cut_after]
                made.cut_after = 0
            self.wfile.write(body[begin:])

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


def helper(cache: Path, *arguments: str, rc: int = 0, program: Path = HELPER, **environment: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-B", str(program), *arguments],
        env={**os.environ, "DEPLOYER_CACHE": str(cache), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert ended.returncode == rc, ended.stdout
    assert "Traceback" not in ended.stdout
    return ended.stdout


def test_the_official_image_is_downloaded_verified_and_used_from_the_cache(mirror: Mirror, tmp_path: Path) -> None:
    told = helper(tmp_path, "image", DEPLOYER_IMAGE_MIRROR=mirror.url)
    disk = Path(told.splitlines()[-1])
    assert disk.read_bytes() in mirror.files.values()
    assert "downloading the base image: " in told
    assert disk.stat().st_mode & 0o777 == 0o600
    assert helper(tmp_path, "image", DEPLOYER_IMAGE_MIRROR=NOWHERE).split() == [str(disk)]
    check = {each["name"]: each for each in json.loads(helper(tmp_path, "check"))}
    assert check["image"] == {"name": "image", "ok": True, "detail": f"cached: {disk}", "fix": ""}


def test_a_download_that_breaks_off_goes_on_where_it_stopped(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cut_after = 1_000_000
    told = helper(tmp_path, "image", DEPLOYER_IMAGE_MIRROR=mirror.url)
    assert "trying again" in told
    assert [wanted for name, wanted in mirror.asked if name != "SHA512SUMS"] == ["", "bytes=1000000-"]


def test_a_chunk_that_breaks_off_is_told_and_tried_again(mirror: Mirror, tmp_path: Path) -> None:
    mirror.broken_chunk = "qcow2"
    told = helper(tmp_path, "image", DEPLOYER_IMAGE_MIRROR=mirror.url)
    assert "the download stopped (IncompleteRead(" in told
    assert Path(told.splitlines()[-1]).read_bytes() in mirror.files.values()


def test_checksums_that_break_off_are_checksums_that_cannot_be_had(mirror: Mirror, tmp_path: Path) -> None:
    mirror.broken_chunk = "SHA512SUMS"
    told = helper(tmp_path / "cache", "image", rc=1, DEPLOYER_IMAGE_MIRROR=mirror.url, PATH=str(tmp_path))
    assert f"{mirror.url} cannot be reached" in told


def test_an_image_with_another_checksum_is_refused_and_deleted(mirror: Mirror, tmp_path: Path) -> None:
    for name in mirror.files:
        if name != "SHA512SUMS":
            mirror.files[name] = os.urandom(1000)
    told = helper(tmp_path, "image", rc=1, DEPLOYER_IMAGE_MIRROR=mirror.url)
    assert "does not have its published SHA-512" in told
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"lock"}


def test_commands_that_start_together_download_once(mirror: Mirror, tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=helper, args=(tmp_path, "image"), kwargs={"DEPLOYER_IMAGE_MIRROR": mirror.url})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([name for name, _ in mirror.asked if name != "SHA512SUMS"]) == 1


def test_without_a_network_and_mmdebstrap_both_ways_out_are_named(tmp_path: Path) -> None:
    told = helper(tmp_path / "cache", "image", rc=1, DEPLOYER_IMAGE_MIRROR=NOWHERE, PATH=str(tmp_path))
    assert f"{NOWHERE} cannot be reached" in told
    assert "connect to the internet, or: sudo apt install mmdebstrap" in told
    (found,) = [
        each
        for each in json.loads(helper(tmp_path / "cache", "check", PATH=str(tmp_path), DEPLOYER_IMAGE_MIRROR=NOWHERE))
        if each["name"] == "image"
    ]
    assert found["fix"] in told, "doctor says the same before"


def test_a_failed_build_tells_the_tools_last_words_and_leaves_nothing_that_looks_ready(tmp_path: Path) -> None:
    (tmp_path / "mmdebstrap").write_text('#!/bin/sh\necho "E: no such suite" >&2\nexit 3\n')
    (tmp_path / "mmdebstrap").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    told = helper(tmp_path / "cache", "image", rc=1, DEPLOYER_IMAGE_MIRROR=NOWHERE, PATH=path)
    assert "the build of the base image failed: E: no such suite" in told
    assert not list((tmp_path / "cache" / "images").glob("debian-*"))


def test_check_names_what_is_missing_and_how_to_mend_it(tmp_path: Path) -> None:
    found = {
        each["name"]: each
        for each in json.loads(helper(tmp_path / "cache", "check", PATH=str(tmp_path), DEPLOYER_IMAGE_MIRROR=NOWHERE))
    }
    assert set(found) == {"qemu-system", "qemu-img", "image", "acceleration", "disk space", "ports"}
    assert not found["qemu-system"]["ok"]
    assert "apt install qemu-system-" in found["qemu-system"]["fix"]
    assert not found["image"]["ok"]
    assert found["disk space"]["ok"]


def test_check_tells_who_has_the_port_that_the_example_asks_for(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody else may have it already
            taken.bind(("127.0.0.1", 8080))
            taken.listen()
        told = {each["name"]: each for each in json.loads(helper(tmp_path, "check", DEPLOYER_IMAGE_MIRROR=NOWHERE))}
    assert told["ports"]["ok"]
    detail = told["ports"]["detail"]
    assert detail.startswith("free ones can be had; but 8080, which the example asks for, is taken by ")


def test_who_listens_at_another_address_is_not_in_the_way() -> None:
    """It was blamed where a machine had the port itself, and no change of that machine went through."""

    def listening(address: str, port: int) -> subprocess.Popen[str]:
        code = "import socket, sys, time; s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)"
        code += "; s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(); print(s.getsockname()[1], flush=True)"
        argv = [sys.executable, "-c", f"{code}; time.sleep(20)", address, str(port)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def listener(port: int) -> str:
        code = f"import host; print(host.listener({port}))"
        return subprocess.check_output([sys.executable, "-B", "-c", code], cwd=HELPER.parent, text=True).strip()

    def see_who_is_found_at(address: str, port: int) -> None:
        with listening(address, port) as process:
            assert process.stdout
            assert process.stdout.readline() == f"{port}\n"
            assert listener(port) == str(process.pid)
            process.kill()

    with listening("127.0.0.2", 0) as innocent:
        assert innocent.stdout
        port = int(innocent.stdout.readline())
        assert listener(port) == "None"
        for address in ("127.0.0.1", "::ffff:127.0.0.1"):
            see_who_is_found_at(address, port)
        innocent.kill()
    for address in ("0.0.0.0", "::", "::ffff:0.0.0.0"):
        see_who_is_found_at(address, port)


def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = helper(tmp_path / "file" / "cache", "image", rc=1)
    assert "cannot make the cache" in told
    assert "set DEPLOYER_CACHE" in told


def test_processes_that_write_the_same_record_at_once_do_not_fail(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    again = f"import host, pathlib\nfor n in range(2000): host.write_atomically(pathlib.Path({str(record)!r}), str(n))"
    writers = [subprocess.Popen([sys.executable, "-B", "-c", again], cwd=HELPER.parent) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [record.name]
    assert record.read_text() == "1999"


def test_the_cache_may_be_said_from_the_users_home(tmp_path: Path) -> None:
    helper(Path("~/cache"), "image", rc=1, HOME=str(tmp_path), PATH=str(tmp_path), DEPLOYER_IMAGE_MIRROR=NOWHERE)
    assert (tmp_path / "cache" / "images").is_dir()


def test_a_user_without_a_home_is_told_what_to_set() -> None:
    """Such a user is in no list of users, as in many a container."""
    nobody = "import machine, os, pwd, sys\npwd.getpwuid = lambda uid: {}[uid]\nsys.exit(machine.main(['image']))"
    homes = ("HOME", "XDG_CACHE_HOME", "DEPLOYER_CACHE")
    ended = subprocess.run(
        [sys.executable, "-B", "-c", nobody],
        cwd=HELPER.parent,
        env={key: value for key, value in os.environ.items() if key not in homes},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert ended.returncode == 1
    assert ended.stderr == "HOME is not set, so ~/.cache/deployer is nowhere\nset HOME, or set DEPLOYER_CACHE\n"


def machine(**changes: Any) -> dict[str, Any]:
    asked = {"name": "web", "id": "0-1", "environment": "t", "cpus": 1, "memory": 128, "disk": 4, "ports": []}
    asked |= {"called": "/machines/web", "promised": [], "born": "now", "started": "now", "image": ""} | changes
    packed = base64.b64encode(gzip.compress(b"#cloud-config\n{}")).decode()
    return {"DEPLOYER_MACHINE": json.dumps(asked), "DEPLOYER_USER_DATA": packed}


@pytest.mark.parametrize("name", ["..", "a/b", "", "A", "a" * 64, "-a"])
def test_a_name_that_is_no_folder_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    assert "is no name for a machine" in helper(tmp_path, "remove", rc=1, **machine(name=name))


def test_an_image_that_is_not_there_is_told(tmp_path: Path) -> None:
    copy = shutil.copytree(HELPER.parent, tmp_path / "tofu")  # as an environment has it: machines are made beside it
    told = helper(tmp_path, "start", rc=1, program=copy / "machine.py", **machine(image="./none.qcow2"))
    assert f"machine web: the image {Path.cwd() / 'none.qcow2'} is not a file" in told
    assert "option `image`" in told
    assert [path.name for path in (copy / "machines").rglob("*") if path.is_file()] == ["begun"], "nothing was made"


def test_an_unknown_command_shows_the_known_ones(tmp_path: Path) -> None:
    assert "start, remove" in helper(tmp_path, "stop", rc=2)
