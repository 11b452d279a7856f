"""What is not an environment is refused as such, whatever it is: ten thousand texts, broken in every way we know."""

from __future__ import annotations

import copy
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from deployer.environment import (
    AnyEnvironment,
    Failure,
    FinishedStep,
    Host,
    NotAnEnvironment,
    PortForward,
    Resources,
    create,
    encode,
    restore,
)
from deployer.errors import FailureKind

AT = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
SEED = 20260101
MUTATIONS = 10_000


def every_state() -> list[AnyEnvironment]:
    failure = Failure(step="tofu_apply", kind=FailureKind.TOFU, cause="kein Platz für „web“", at=AT, log="/ö/run.log")
    forward = PortForward(host=8080, machine=80)
    hosts = {"web": Host(address="10.0.0.7", port=22, user="root", ports=(forward,), id="i-1", console=None)}
    spec: dict[str, Any] = {"name": "demo", "größe": 1.5, "list": [1, None, {"a": "b"}], "deep": {"x": {"y": {}}}}
    created = create("demo", spec, "/home/ä/projekt", AT)
    provisioning = created.start_provision("r1", AT, spec=spec, file="/home/ä/projekt")
    provisioning = provisioning.begin("render_tofu", AT).end(AT).begin("tofu_apply", AT)
    provisioned = provisioning.found_hosts(hosts, AT).end(AT).succeed(AT)
    configuring = provisioned.start_configure("r2", AT).begin("playbook:web", AT)
    configured = configuring.end(AT).succeed(AT)
    destroying = configured.start_destroy("r3", AT)
    return [
        created, provisioning, provisioned, provisioning.expect_resources(AT).fail(failure), configuring, configured,
        configuring.fail(failure), destroying, destroying.resources_gone(AT).succeed(AT), destroying.fail(failure),
    ]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in some JSON data."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found += [place for key, inner in items for place in places(inner, (*path, key))]
    return found


def container(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        data = data[key]
    return data


def dumped(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, indent=2).encode("utf-8", errors="surrogatepass")


WRONG: list[object] = [
    None, True, 0, -1, 1.5, 10**400, "", "x", "\x00", "\n", "\ud800", [], {}, [[]], {"": None}, "2026-01-01", "now",
    1767268800, "1767268800", "../../etc/passwd", "none", "present", "created", "destroyed", "a" * 5000, 65536, -22,
    "0000-00-00T00:00:00Z", "2026-01-01T00:00:00", "+999999-01-01T00:00:00Z", [None] * 1000, "\x1b[31m", math.pi,
]  # fmt: skip


def empty(_text: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"", b" ", b"\n\n", b"\x00" * rng.randrange(1, 4096), b"\t\r\n", b"\xef\xbb\xbf"])


def truncated(text: bytes, rng: random.Random) -> bytes:
    return text[: rng.randrange(len(text))]


def tail_only(text: bytes, rng: random.Random) -> bytes:
    return text[rng.randrange(1, len(text)) :]


def bits_flipped(text: bytes, rng: random.Random) -> bytes:
    broken = bytearray(text)
    for _ in range(rng.choice([1, 1, 1, 2, 8, 64])):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def block_of_zeroes(text: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(text))
    length = rng.randrange(1, 512)
    return text[:start] + b"\x00" * len(text[start : start + length]) + text[start + length :]


def cut_out(text: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(text))
    return text[:start] + text[start + rng.randrange(1, 64) :]


def line_lost_or_doubled(text: bytes, rng: random.Random) -> bytes:
    lines = text.splitlines(keepends=True)
    number = rng.randrange(len(lines))
    lines[number : number + 1] = [] if rng.random() < 0.5 else [lines[number]] * 2
    return b"".join(lines)


def two_files_in_one(text: bytes, rng: random.Random) -> bytes:
    return text + rng.choice([text, b"{}", b"null", b",", b"\x00", text[: rng.randrange(len(text))]])


def noise(_text: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(2000))


def deep(text: bytes, rng: random.Random) -> bytes:
    depth = rng.choice([150, 250, 1000, 20_000])
    pit = (b"[" * depth + b"]" * depth) if rng.random() < 0.5 else (b'{"a":' * depth + b"1" + b"}" * depth)
    if rng.random() < 0.3:
        return pit[: rng.randrange(1, len(pit))]
    return text.replace(b'"spec": {', b'"spec": {"pit": ' + pit + b",", 1)


def huge(text: bytes, rng: random.Random) -> bytes:
    size = rng.choice([10_000, 200_000])
    texts = (
        text.replace(b'"demo"', b'"' + b"d" * size + b'"'),
        text.replace(b'"file": "', b'"file": "' + b"9" * size),
        text.replace(b'"spec": {', b'"spec": {"n": ' + b"9" * size + b","),
        text + b" " * size,
    )
    return rng.choice(texts)


def wrong_value(text: bytes, rng: random.Random) -> bytes:
    data = json.loads(text)
    path = rng.choice(places(data))
    container(data, path)[path[-1]] = copy.deepcopy(rng.choice(WRONG))
    return dumped(data)


def field_lost(text: bytes, rng: random.Random) -> bytes:
    data = json.loads(text)
    path = rng.choice(places(data))
    del container(data, path)[path[-1]]
    return dumped(data)


def field_added(text: bytes, rng: random.Random) -> bytes:
    data = json.loads(text)
    holders = [data, *(inner for p in places(data) if isinstance(inner := container(data, (*p, None)), dict))]
    rng.choice(holders)[rng.choice(["", "State", "state ", "version", "__class__", "x" * 300, "\ud800"])] = 1
    return dumped(data)


def key_doubled(text: bytes, rng: random.Random) -> bytes:
    key: str = rng.choice(list(json.loads(text)))
    value = rng.choice([b"null", b'"created"', b'"destroyed"', b'"none"', b"{}", b"[]", b'"2026-01-01T00:00:00Z"'])
    doubled = b'"' + key.encode() + b'": ' + value
    at_the_end = rng.random() < 0.5
    return text.rstrip()[:-1] + b"," + doubled + b"}" if at_the_end else b"{" + doubled + b"," + text[1:]


def another_state(text: bytes, rng: random.Random) -> bytes:
    data = json.loads(text)
    data["state"] = rng.choice([*"abc", "released", "running", "Created", "created\n", "", None, 1, [], {}, True])
    return dumped(data)


def not_a_number(text: bytes, rng: random.Random) -> bytes:
    word = rng.choice([b"NaN", b"Infinity", b"-Infinity", b"nan", b"1e999", b"undefined", b"'x'", b"01", b"+1", b"1."])
    return text.replace(b"1.5", word) if rng.random() < 0.5 else text.replace(b"2222", word).replace(b"8080", word)


def other_encoding(text: bytes, rng: random.Random) -> bytes:
    name = rng.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "utf-8-sig", "cp037"])
    return text.decode().encode(name, errors="replace")


def not_an_object(text: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"null", b"true", b"1", b'"created"', b"[]", b"[" + text + b"]", b'"' + text + b'"', b"{}"])


def other_words(_text: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"name: demo\nstate: created\n", b"<xml/>", b"{'state': 'created'}", b"{state: created}"])


KINDS: list[Callable[[bytes, random.Random], bytes]] = [
    empty, truncated, tail_only, bits_flipped, bits_flipped, block_of_zeroes, cut_out, line_lost_or_doubled,
    two_files_in_one, noise, deep, huge, wrong_value, wrong_value, wrong_value, field_lost, field_added, key_doubled,
    another_state, not_a_number, other_encoding, not_an_object, other_words,
]  # fmt: skip


def is_what_it_says(text: bytes, environment: AnyEnvironment) -> bool:
    """Whether the text, read by another JSON parser, has what the environment has: no field more, none less."""

    def instant(text: str) -> datetime:
        return datetime.fromtimestamp(int(text), UTC) if text.isdigit() else datetime.fromisoformat(text.upper())

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        if isinstance(a, list) and isinstance(b, list):
            return len(a) == len(b) and all(map(same, a, b))
        if a == b and isinstance(a, bool) == isinstance(b, bool):
            return True
        return isinstance(a, str) and isinstance(b, str) and instant(a) == instant(b)

    return same(json.loads(text), json.loads(encode(environment)))


def test_ten_thousand_broken_texts_are_refused_or_mean_what_they_say() -> None:
    rng = random.Random(SEED)
    originals = [encode(environment).encode() for environment in every_state()]
    told: Counter[str] = Counter()
    for number in range(MUTATIONS):
        kind = KINDS[number % len(KINDS)]
        text = kind(rng.choice(originals), rng)
        try:
            environment = restore(text)
        except NotAnEnvironment as error:
            told[f"{kind.__name__} refused" if str(error).rpartition(": ")[2] else "no problem told"] += 1
            continue
        told[f"{kind.__name__} accepted"] += 1
        assert is_what_it_says(text, environment), (number, kind.__name__, text)
        assert restore(encode(environment)) == environment
    assert not told["no problem told"]
    never = {"empty", "noise", "another_state", "not_an_object", "other_words"}
    assert not [kind for kind in never if told[f"{kind} accepted"]], told
    assert all(any(told[f"{kind.__name__} {end}"] for end in ("accepted", "refused")) for kind in KINDS)


def test_restore_gives_back_the_class() -> None:
    for environment in every_state():
        text = encode(environment)
        assert type(restore(text)) is type(environment)
        assert restore(text) == restore(text.encode()) == environment


@pytest.mark.parametrize("environment", every_state(), ids=lambda e: e.state)
def test_a_missing_field_is_refused_by_name_and_never_filled_in(environment: AnyEnvironment) -> None:
    data = json.loads(encode(environment))
    for path in places(data):
        if path[0] == "spec" and len(path) > 1:
            continue  # opaque: every JSON is a specification here
        less = copy.deepcopy(data)
        del container(less, path)[path[-1]]
        if isinstance(container(less, path), list) or path[:-1] == ("hosts",):
            continue  # one host or one finished step less is an environment, too
        with pytest.raises(NotAnEnvironment) as caught:
            restore(dumped(less))
        assert str(caught.value).partition(": ")[0] == "field " + ".".join(map(str, path))


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("", "", "Invalid JSON"),
        ("[]", "", "should be an object"),
        ("{}", "state", "is missing, or no text"),
        ('{"state": "running\\u001b"}', "state", r"'running\x1b' is no state"),
        ('{"state": "created", "version": 2}', "name", "Field required"),
        ("\ud800", "", "unable to parse raw data as a unicode string"),
        (b"\xff\xfe{\x00}\x00", "", "Invalid JSON"),
    ],
)
def test_the_place_and_the_problem_are_named(text: str | bytes, field: str, problem: str) -> None:
    with pytest.raises(NotAnEnvironment) as caught:
        restore(text)
    place = re.match(r"field (\S+): ", str(caught.value))
    assert (place[1] if place else "") == field
    assert problem in str(caught.value)[place.end() if place else 0 :]


def test_what_is_known_to_exist_is_not_lost_with_its_line() -> None:
    run = create("demo", {}, "/d", AT).start_provision("r1", AT, spec={}, file="/d").expect_resources(AT)
    assert run.resources is Resources.POSSIBLE
    without = "".join(line for line in encode(run).splitlines(keepends=True) if '"resources"' not in line)
    json.loads(without)
    with pytest.raises(NotAnEnvironment, match="resources: Field required"):
        restore(without)


def test_a_finished_step_knows_its_duration() -> None:
    assert FinishedStep(name="tofu_init", started_at=AT, ended_at=AT).seconds == 0.0
