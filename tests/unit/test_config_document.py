"""YAML's traps, one line each: what is read, and what is refused with its line and the reason."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.config.document import BadDocument, parse

_LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a: 1\nb: [1, 2.5, {c: d}]", {"a": 1, "b": [1, 2.5, {"c": "d"}]}),
        (r'"\ud83d\ude00"', "\ud83d\ude00"),  # as JSON has a character beyond U+FFFF
        ("a: 2024-01-01", {"a": "2024-01-01"}),  # no instant in a time zone nobody named
        ("a: 2024-01-01 10:00:00Z", {"a": "2024-01-01 10:00:00Z"}),
        ("a: 22:22", {"a": "22:22"}),  # and not 1342
        ("a: 0644", {"a": 420}),
        ("a: 089", {"a": "089"}),
        ("a: [0, 00, -0, 0x1f, 0b11, 1_000]", {"a": [0, 0, 0, 31, 3, 1000]}),
        ("a: [yes, no, true, ~, null]", {"a": [True, False, True, None, None]}),
        ("a: !!str 5", {"a": "5"}),
        ("8080: 80", {"8080": 80}),
        ("on: x\n1.5: y\n~: z\n0644: w", {"on": "x", "1.5": "y", "~": "z", "0644": "w"}),  # a key is what was typed
        ("a: &x 1\nb: *x", {"a": 1, "b": 1}),
        ("a: &x {c: [1]}\nb: [*x, *x]", {"a": {"c": [1]}, "b": [{"c": [1]}, {"c": [1]}]}),
        ("~", None),
    ],
)
def test_what_is_read(text: str, data: object) -> None:
    assert parse(text).data == data


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "the file is empty"),
        ("# only a comment\n", 1, "the file is empty"),
        ("a: 1\n---\nb: 2", 2, "expected a single document in the stream"),
        ("a: 1\nb: 2\na: 3", 3, "the key a is here a second time; first on line 1"),
        ("a: 1\n'a': 2", 2, "the key a is here a second time; first on line 1"),
        ("a: {1: x, '1': y}", 1, "the key 1 is here a second time"),
        ("a:\n\tb: 1", 2, "found character '\\t' that cannot start any token"),
        ("a: [1", 1, "not valid YAML, column 6"),
        ("a: b: c", 1, "mapping values are not allowed here"),
        ("a: @x", 1, "cannot start any token"),
        ("a: \x00", 1, "character 0x0 is not allowed"),
        ("a: 1\nb: \x07", 2, "character 0x7 is not allowed"),
        (
            "a: 1\nb: \udcff",
            2,
            "byte 0xff is not allowed; YAML is UTF-8",
        ),  # how an undecodable byte arrives here
        ("a: &x [*x]", 1, "nested more than 50 levels"),
        ("a: &x {b: *x}", 1, "nested more than 50 levels"),
        ("a: *nowhere", 1, "found undefined alias 'nowhere'"),
        ("a: &x 1\nb: &x 2", 2, "found duplicate anchor 'x'"),
        (_LAUGHS, 1, "more than 100,000 values"),
        (f"a: &a {'x' * 11_000}\nb: [{','.join(['*a'] * 100)}]", 1, "more than 1 MiB of text, aliases expanded"),
        (f"a: &a {{{'k' * 1000}: 1}}\nb: [{','.join(['*a'] * 1100)}]", 1, "more than 1 MiB of text"),
        ('a: 1\nb: "\\ud83d x"', 2, "half of one"),
        ('"\\ude00\\ud83d": 1', 1, "half of one"),
        ("a: " + "[" * 100_000, 1, "nested more than 50 levels"),
        ("a: " + "{b: " * 100 + "}" * 100, 1, "nested more than 50 levels"),
        ("? [1]\n: 2", 1, "a key must be a single text"),
        ("a: !vault x", 1, "the tag !vault is not supported"),
        ("a: !!python/object/apply:os.system [x]", 1, "is not supported"),
        ("a: !!binary aGk=", 1, "the tag !!binary is not supported"),
        ("a: !!set {x}", 1, "the tag !!set is not supported"),
        ("a: !!int x", 1, "not a number that can be used"),
        ("a: .nan", 1, "not a number that can be used"),
        ("a: -.inf", 1, "not a number that can be used"),
        ("a: 1.0e+999", 1, "not a number that can be used"),
        ("a: " + "9" * 5000, 1, "not a number that can be used"),
        ("a: !!map x", 1, "the tag !!map is not supported"),
        ("a: &a {x: 1}\nb:\n  <<: *a", 3, "<< is not supported"),
    ],
)
def test_what_is_refused(text: str, line: int, problem: str) -> None:
    with pytest.raises(BadDocument) as caught:
        parse(text)
    assert problem in caught.value.problem
    assert caught.value.line == line


@given(st.text(alphabet=st.sampled_from("ab01: -[]{}&*!|>'\"\n\t#%?,<~@`\\\x00é"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadDocument):
        parse(text)
