"""Definitions of workflows: what is read, in which order it runs, and what is refused with a reason."""

from __future__ import annotations

import json
import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.workflows import (
    Definition,
    FileFormat,
    Severity,
    check,
    checked_arguments,
    checked_definition,
    condition,
    format_of,
    graph,
    holds,
    lint,
    outputs_of,
    parse_definition,
)
from beamkeeper.domain.workflows.literal import parse_literal
from beamkeeper.testing.workflows import FIGURE_3

BOOST_CORR = r"""
## the workflow of 8-ID, as it is kept in their repository: comments, sums of texts, no newline at its end
{
    'name': 'xpcs8-boost-corr', 'owner': '8idiuser', 'userAccount': '8idiuser',
    'stages': {
        '01-MACHINE': {
            'command': "sh choose.sh \"$analysisMachine\" " + \
                       "\"$smooth\"",
            'outputVariableRegexList': ['Machine: (?P<analysisMachine>.*) args: (?P<args>.*)'],
        },
        '02-LOCAL': {
            'command': 'ssh $analysisMachine "bash run.sh $args"',
            'runIf': '"$analysisMachine" != "polaris"',
        },
        '03-MONITOR': {
            'command': 'state.sh', 'outputVariableRegexList': ['State: (?P<state>.*)'],
            'repeatPeriod': 5, 'repeatUntil': '"$state" == "DONE" or "$state" == "FAILED"', 'maxRepeats': 999999,
        }, # the last
    }
} # end"""


def defined(stages: dict[str, Any], **keys: Any) -> Definition:
    """Return a definition of these stages."""
    return checked_definition({"name": "w", "stages": stages, **keys})


def messages(definition: Definition, severity: Severity) -> str:
    """Return what the linter says."""
    return "\n".join(f"{found.stage}: {found.message}" for found in lint(definition) if found.severity is severity)


def test_figure_3_of_the_founding_paper_is_read_as_it_is_printed() -> None:
    definition = parse_definition(FIGURE_3, format_of("tomo.py", FIGURE_3))
    assert (definition.name, definition.owner) == ("tomo-demo-01", "pelmer")
    assert definition.stages["2-Process"].command == (
        'ssh txmtwo "source /home/dm/etc/dm.setup.sh > /dev/null; '
        '/home/dm/workflows/tomo-01/tomo-01.py $filePath $outputDir"'
    )
    assert graph(definition) == {"1-Startup": (), "2-Process": ("1-Startup",), "3-Upload": ("2-Process",)}
    warnings = check(definition)
    assert {(found.stage, "remote: HOST" in found.message) for found in warnings} == {("2-Process", True)}


def test_a_real_definition_with_comments_and_sums_is_read() -> None:
    definition = parse_definition(BOOST_CORR, FileFormat.PYTHON)
    assert definition.stages["01-MACHINE"].command == 'sh choose.sh "$analysisMachine" "$smooth"'
    assert definition.stages["03-MONITOR"].max_repeats == 999999
    check(definition)


def test_the_same_definition_in_every_format() -> None:
    document = json.dumps({"name": "w", "stages": {"1": {"command": "date $id", "timeout": 5}}})
    texts = {
        FileFormat.JSON: document,
        FileFormat.PYTHON: "{'name': 'w', 'stages': {'1': {'command': 'date $id', 'timeout': 5,}}}",
        FileFormat.YAML: "name: w\nstages:\n  '1':\n    command: date $id\n    timeout: 5\n",
        FileFormat.TOML: 'name = "w"\n[stages.1]\ncommand = "date $id"\ntimeout = 5\n',
    }
    for kind, text in texts.items():
        assert parse_definition(text, kind) == parse_definition(document, FileFormat.JSON)
        assert parse_definition(text, format_of("unknown", text)) == parse_definition(document, FileFormat.JSON)


def test_a_definition_comes_back_from_its_document() -> None:
    definition = parse_definition(BOOST_CORR, FileFormat.PYTHON)
    assert checked_definition(definition.model_dump(mode="json")) == definition
    assert "outputVariableRegexList" in definition.model_dump_json()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch PWNED')",
        "{'name': open('/etc/passwd').read()}",
        "{'a': [x for x in ()]}",
        "{'a': f'{1}'}",
        "{'a': 1 + 1}",
        "{'a': 'x' * 9}",
        "{**{}}",
        "{1: 2}",
        "{'a': 1, 'a': 2}",
        "{'a': 'never closed}",
        "(" * 5000,
        "[" * 90 + "]" * 90,
        "{'a': 'x\0'}",
    ],
)
def test_what_is_no_literal_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_literal(text)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_whatever_python_prints_is_read_back(value: Any) -> None:
    assert parse_literal(repr(value)) == value


@given(st.text(alphabet=string.printable))
def test_any_text_is_read_or_refused(text: str) -> None:
    for kind in FileFormat:
        try:
            parse_definition(text, kind)
        except InvalidError:
            continue


@pytest.mark.parametrize(
    "text", ["a: &x [1]\nb: *x", "!!python/object/apply:os.system ['true']", "a: 1\na: 2", "a: [", "x: " + "[" * 60]
)
def test_yaml_that_could_do_more_than_say_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="YAML"):
        parse_definition(text, FileFormat.YAML)


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ({"name": "w", "stages": {}}, "stages"),
        ({"name": "w", "stages": {"1": {"comand": "x"}}}, "stages.1.comand: there is no such key"),
        ({"name": "w", "stages": {"1": {"command": "x", "sizes": 1}}}, "stages.1.sizes"),
        ({"name": "w", "stage": {}}, "stages: it is missing"),
        ({"name": "w w", "stages": {"1": {"command": "x"}}}, "name"),
        ({"name": "w", "stages": {"1": {"command": "x", "environment": {"BASH_ENV": "x"}}}}, "BASH_ENV"),
        ({"name": "w", "stages": {"1": {"command": "x", "remote": "-oProxyCommand=x"}}}, "remote"),
        ({"name": "w", "arguments": {"LD_PRELOAD": {}}, "stages": {"1": {"command": "x"}}}, "LD_PRELOAD"),
        ({"name": "w", "arguments": {"status": {}}, "stages": {"1": {"command": "x"}}}, "status"),
    ],
)
def test_what_is_wrong_is_refused_by_its_place(document: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidError, match=word):
        checked_definition(document)


def test_with_needs_the_graph_rules() -> None:
    stages = {"c": {"command": "x", "needs": ["a", "b"]}, "b": {"command": "x"}, "a": {"command": "x", "needs": []}}
    assert graph(defined(stages)) == {"a": (), "b": (), "c": ("a", "b")}


@pytest.mark.parametrize(
    ("stages", "word"),
    [
        ({"a": {"command": "x", "needs": ["b"]}, "b": {"command": "x", "needs": ["a"]}}, "circle"),
        ({"a": {"command": "x", "needs": ["z"]}}, 'needs "z"'),
        ({"a": {"command": "x", "needs": ["a"]}}, "circle"),
    ],
)
def test_needs_that_cannot_be_met_are_refused(stages: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidError, match=word):
        check(defined(stages))


def test_stages_run_in_text_order_and_the_linter_says_where_that_surprises() -> None:
    definition = defined({"2-b": {"command": "x"}, "10-a": {"command": "x"}})
    assert list(graph(definition)) == ["10-a", "2-b"]
    assert '"10-a" runs before "2-b"' in messages(definition, Severity.WARNING)


@pytest.mark.parametrize(
    ("text", "is_true"),
    [
        ('"$count" == "$randomNumber"', True),
        ('"$analysisMachine" != "polaris" and (".master" in "$filePath" or ".mda" in "$filePath")', True),
        ('not ".master" in "$filePath"', True),
        ('".mda" not in "$filePath"', False),
        ('"$count" < 10', True),
        ("$count == 7.0", True),
        ('"$count" == "7.0"', False),
        ('"$missing" == ""', True),
        ("'$count' > '10'", False),
        ('not ("$count" == "7" or True)', False),
        ('"$evil" == "x"', False),
    ],
)
def test_a_condition_holds(text: str, is_true: bool) -> None:
    values = {"count": "7", "randomNumber": "7", "analysisMachine": "local", "filePath": "/d/a.mda"}
    assert holds(text, {**values, "evil": '" == "" or "a" == "a'}) is is_true


@pytest.mark.parametrize(
    "text",
    [
        "$x",
        '"$x"',
        "x == 1",
        '"a" = "b"',
        '"a" == ',
        "(" * 30 + "True" + ")" * 30,
        '"a" == "b" "c"',
        "__import__('os')",
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(InvalidError, match=r"character|refused"):
        condition(text)


@given(st.text(), st.text())
def test_a_value_never_becomes_an_operator(one: str, other: str) -> None:
    assert holds('"$one" == "$other"', {"one": one, "other": other}) is (one == other)
    assert holds('"$one" in "$other"', {"one": one, "other": other}) is (one in other)


def test_declared_arguments_are_checked() -> None:
    arguments = {
        "nCpus": {"type": "int", "required": True},
        "mode": {"type": "choice", "choices": ["fast", "good"], "default": "fast"},
        "parts": {"type": "multiple_choice", "choices": ["a", "b", "c"]},
        "smooth": {"type": "bool"},
    }
    definition = defined({"1": {"command": "x $nCpus $mode $parts $smooth"}}, arguments=arguments)
    given_: dict[str, Any] = {"nCpus": 4, "parts": "a,c", "smooth": "no", "filePath": "/x", "experimentName": "e"}
    values = checked_arguments(definition, given_).values
    assert values == {"nCpus": "4", "mode": "fast", "parts": "a,c", "smooth": "False", "experimentName": "e"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"nCpus": "four"}, "whole number"),
        ({}, '"nCpus" is missing'),
        ({"nCpus": 1, "ncpus": 2}, 'did you mean "nCpus"'),
        ({"nCpus": 1, "mode": "slow"}, "one of fast, good"),
        ({"nCpus": 1, "parts": "a,z"}, "one of a, b, c"),
        ({"nCpus": 1, "owner": "me"}, "owner"),
        ({"nCpus": 1, "LD_PRELOAD": "x"}, "LD_PRELOAD"),
    ]
    for wrong, word in cases:
        with pytest.raises(InvalidError, match=re.escape(word)):
            checked_arguments(definition, wrong)


def test_without_declarations_what_is_not_set_is_empty_with_a_warning() -> None:
    definition = parse_definition(BOOST_CORR, FileFormat.PYTHON)
    checked = checked_arguments(definition, {"analysisMachine": "adamite", "other": None})
    assert checked.values == {"analysisMachine": "adamite", "other": ""}
    assert checked.warnings == ('stage "01-MACHINE": $smooth is not set, and empty',)


def test_with_declarations_a_variable_that_nobody_sets_is_refused() -> None:
    stages = {
        "1": {"command": "x $typo $late $HOME $id"},
        "2": {"command": "y", "outputVariableRegexList": ["(?P<late>.)"]},
    }
    found = lint(defined(stages, arguments={"unused": {}}))
    assert found[0].severity is Severity.ERROR
    assert "$typo" in found[0].message
    assert "$late" in messages(defined(stages, arguments={"unused": {}}), Severity.WARNING)
    assert 'no stage uses the argument "unused"' in messages(
        defined(stages, arguments={"unused": {}}), Severity.WARNING
    )


@pytest.mark.parametrize(
    ("stage", "word"),
    [
        ({"command": "$program x"}, "which program"),
        ({"command": "x", "repeatUntil": '"$a" == "b"'}, "go together"),
        ({"command": "x", "runIf": "a == b"}, "quotes"),
        ({"command": "x", "outputVariableRegexList": ["(?P<id>.*)"]}, '"id"'),
        ({"command": "x", "outputVariableRegexList": ["no group"]}, "named group"),
        ({"command": "x", "outputVariableRegexList": ["(?P<a>x{1000}){1000}"]}, "refused"),
        ({"command": "x", "outputVariableRegexList": ["(?P<a>.)(?=b)"]}, "look-around"),
        ({"command": "cat <<'E'\n$filePath\nE\n"}, "here-document"),
        ({"command": "echo 'x"}, "never closed"),
    ],
)
def test_what_is_dangerous_or_wrong_is_refused_when_it_is_added(stage: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidError, match=word):
        check(defined({"1": stage}))


def test_the_last_match_counts_and_evil_patterns_take_no_time() -> None:
    text = "File: a\r\nnothing\nFile: b c\n"
    assert outputs_of(["File: (?P<name>.*)", "(?P<other>missing)"], text) == {"name": "b c"}
    assert outputs_of(["(?P<x>(a+)+)$"], "a" * 60_000 + "b") == {}
    assert outputs_of(["(?P<x>.*)"], "y" * 10_000_000)["x"] == "y" * 8192
