"""Commands of workflows: no value becomes more than a value, in whatever quotes it stands, in sh and in bash."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from beamkeeper.domain.errors import InvalidError, UnsafeValueError
from beamkeeper.domain.workflows import InputFile, checked_definition, commands_for
from beamkeeper.testing.workflows import HOSTILE, hostile_values

SHELLS = ("/bin/sh", "/bin/bash")

SAFE = {
    "bare": "printf '%s' $filePath",
    "double": "printf '%s' \"$filePath\"",
    "single": "printf '%s' '$filePath'",
    "braced": "printf '%s' ${filePath}",
    "braced in double quotes": "printf '%s' \"${filePath}\"",
    "assigned": "x=$filePath; printf '%s' \"$x\"",
    "exported": "export x=$filePath; printf '%s' \"$x\"",
    "command substitution": "printf '%s' \"$(printf '%s.' $filePath)\"",
    "command substitution, quoted inside": "printf '%s' \"$(printf '%s.' \"$filePath\")\"",
    "nested substitutions": "printf '%s' \"$(printf '%s' \"$(printf '%s.' $filePath)\")\"",
    "backquotes": "x=`printf '%s.' $filePath`; printf '%s' \"$x\"",
    "backquotes in double quotes": "printf '%s' \"`printf '%s.' \"$filePath\"`\"",
    "backquotes in double quotes, bare": "printf '%s' \"`printf '%s.' $filePath`\"",
    "here-document": "cat <<EOF\n${filePath}.\nEOF\n",
    "here-document with tabs": "cat <<-EOF\n\t$filePath.\n\tEOF\n",
    "nested shell in single quotes": 'bash -c \'printf "%s" "$filePath"\'',
    "nested shell in single quotes, bare": "sh -c 'printf \"%s\" $filePath'",
    "nested shell, as an argument": 'bash -c \'printf "%s" "$1"\' name $filePath',
    "expansion": "printf '%s' ${filePath#nothing-like-this}",
    "default": "printf '%s' \"${filePath:-none}\"",
    "in a pipeline": "printf '%s' $filePath | cat",
    "in a loop": "for f in $filePath; do printf '%s' \"$f\"; done",
    "awk, as it should be": 'printf x | V=$filePath awk \'{printf "%s", ENVIRON["V"]}\'',
    "after a comment": "# it's $filePath\nprintf '%s' $filePath",
    "case": "case $filePath in nothing) ;; *) printf '%s' $filePath;; esac",
}
"""Each prints the value; those with a dot behind it, the value and a dot, since substitutions drop line breaks."""

REREAD = {
    "ssh": 'ssh host "ls $filePath"',
    "ssh, single quotes": "ssh host 'ls $filePath'",
    "ssh, bare": "ssh host ls $filePath",
    "nested shell": 'bash -c "echo $filePath"',
    "nested shell by a wrapper": "nice -n 5 sh -c 'echo $filePath'",
    "eval": "eval echo $filePath",
    "piped into a shell": 'echo "$filePath" | sh',
    "a group piped into a shell": "{ echo $filePath; } | bash",
    "a subshell piped into a shell": "(echo $filePath) | bash",
    "here-document of a shell": "bash <<EOF\necho $filePath\nEOF\n",
    "here-string of a shell": 'bash <<< "echo $filePath"',
    "by a variable of the shell": 'x="echo $filePath"; bash -c "$x"',
    "by a loop": 'for f in $filePath; do sh -c "echo $f"; done',
    "by a function": 'f() { sh -c "echo $1"; }; f $filePath',
    "arithmetic": "echo $(($filePath + 1))",
    "arithmetic without a dollar": "echo $((filePath + 1))",
    "comparison of numbers": "[[ $filePath -eq 1 ]]",
    "subscript": "a[$filePath]=1",
    "substring": "echo ${HOME:$filePath:1}",
    "indirection": "echo ${!filePath}",
    "awk": 'echo x | awk "{print $filePath}"',
    "sed": 'echo x | sed "s/x/$filePath/"',
    "python": "python3 -c \"print('$filePath')\"",
    "find": 'find . -exec sh -c "echo $filePath" ";"',
    "xargs": "echo $filePath | xargs -I{} sh -c 'echo {}'",
    "make": "make FILE=$filePath",
    "as a command": "env $filePath",
    "a script that is written": "cat > job.sh <<EOF\n#!/bin/sh\necho $filePath\nEOF\nsh job.sh",
    "substitution inside ssh": 'ssh host "$(echo ls $filePath)"',
    "trap": 'trap "echo $filePath" EXIT',
    "declared as a number": "declare -i n=$filePath",
}

CANNOT_BE_MADE_SAFE = {
    "here-document that nothing expands": "cat <<'EOF'\n$filePath\nEOF\n",
    "ANSI quotes": "echo $'$filePath'",
    "prompt expansion": "echo ${filePath@P}",
    "open double quote": 'echo "$filePath',
    "open single quote": "echo '$filePath",
    "open backquote": "echo `echo $filePath",
    "open substitution": "echo $(echo $filePath",
    "open brace": "echo ${filePath",
    "quotes in braces in quotes": "echo \"${filePath:-'x'}\"",
    "case in a substitution": "echo $(case $filePath in x) echo y;; esac)",
    "backslash in backquotes": "echo `echo \\$filePath`",
}


def prepared(command: str, values: Mapping[str, str], *files: InputFile, **keys: object) -> Sequence[str]:
    """Return the texts that a stage would run."""
    stage = {"command": command, **keys}
    definition = checked_definition({"name": "w", "owner": "dm", "stages": {"1": stage}})  # type: ignore[dict-item]
    return [made.text for made in commands_for(definition, "1", values, files)]


def ran(place: Path, shell: str, command: str, path: str) -> bytes:
    """Run a stage with a hostile path as the runner does, and return what it printed; nothing else may happen."""
    definition = checked_definition({"name": "w", "owner": "dm", "stages": {"1": {"command": command}}})
    made = commands_for(definition, "1", {}, [InputFile(path)])[0]
    before = set(os.listdir(place))
    done = subprocess.run(
        [shell, "-c", made.text],
        env={"PATH": os.environ["PATH"], **made.environment},
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert set(os.listdir(place)) == before, done
    assert b"INJECTED" not in done.stdout.split(b"\n"), done
    return done.stdout


def printed(command: str, value: str) -> bytes:
    """Return what one of the safe commands prints of a value."""
    raw = os.fsencode(value)
    return (
        raw
        + (b"." if "%s." in command or "}." in command or "Path." in command else b"")
        + (b"\n" if "<<" in command else b"")
    )


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("style", SAFE)
def test_a_hostile_value_arrives_as_it_is(tmp_path: Path, shell: str, style: str) -> None:
    for value in HOSTILE:
        assert ran(tmp_path, shell, SAFE[style], value) == printed(SAFE[style], value), value


@pytest.mark.parametrize("style", SAFE)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=hostile_values)
def test_whatever_the_value_is_it_arrives(tmp_path: Path, style: str, value: str) -> None:
    for shell in SHELLS:
        assert ran(tmp_path, shell, SAFE[style], value) == printed(SAFE[style], value)


@pytest.mark.parametrize("style", REREAD)
def test_what_is_read_again_is_refused_by_name_unless_it_is_plain(style: str) -> None:
    for value in HOSTILE:
        with pytest.raises(UnsafeValueError, match="filePath"):
            prepared(REREAD[style], {}, InputFile(value))
    assert prepared(REREAD[style], {}, InputFile("12"))


@pytest.mark.parametrize("style", CANNOT_BE_MADE_SAFE)
def test_what_cannot_be_made_safe_is_refused(style: str) -> None:
    with pytest.raises(InvalidError):
        prepared(CANNOT_BE_MADE_SAFE[style], {}, InputFile("x"))


def test_a_value_that_begins_like_an_option_of_ssh_is_refused() -> None:
    with pytest.raises(UnsafeValueError, match="begins with a -"):
        prepared("ssh $analysisMachine date", {"analysisMachine": "-oProxyCommand=/tmp/x"})
    assert prepared('ssh h "tool --omega=$omega"', {"omega": "-0.25"})


def test_a_variable_of_a_loose_definition_becomes_words_as_in_the_original(tmp_path: Path) -> None:
    text = prepared("printf '<%s>' $args end '$args' --all=$args $none", {"args": "a b  c"})[0]
    done = subprocess.run(["sh", "-c", text], env={"args": "a b  c"}, capture_output=True, text=True, check=True)
    assert done.stdout == "<a><b><c><end><a b  c><--all=a b  c>"


def test_a_declared_argument_is_one_word_unless_it_is_declared_as_words() -> None:
    stages = {"1": {"command": "printf '<%s>' $one $many $none"}}
    arguments = {"one": {}, "many": {"type": "words"}, "none": {}}
    definition = checked_definition({"name": "w", "arguments": arguments, "stages": stages})  # type: ignore[dict-item]
    made = commands_for(definition, "1", {"one": "a b", "many": "c d", "none": ""}, [])[0]
    done = subprocess.run(
        ["sh", "-c", made.text], env=dict(made.environment), capture_output=True, text=True, check=True
    )
    assert done.stdout == "<a b><c><d>"


def test_what_is_no_variable_of_the_workflow_stays_in_single_quotes() -> None:
    assert prepared("awk '{print $NF, $1}' $filePath", {}, InputFile("x"))[0].startswith("awk '{print $NF, $1}' ")


@pytest.mark.parametrize("value", HOSTILE)
def test_a_remote_command_has_no_such_limit(tmp_path: Path, value: str) -> None:
    """The stand-in does what sshd does: it gives the words after the host to a shell."""
    fake = tmp_path / "bin" / "ssh"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift 2\nexec env -i PATH="$PATH" sh -c "$*"\n')
    fake.chmod(0o755)
    stage = {"command": "printf '%s' \"$(printf '%s.' $filePath)\"; cat", "remote": "analysis"}
    definition = checked_definition({"name": "w", "stages": {"1": stage}})  # type: ignore[dict-item]
    made = commands_for(definition, "1", {}, [InputFile(value)])[0]
    environment = {**made.environment, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", made.text], env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert done.stdout == os.fsencode(value) + b"."
    assert os.listdir(tmp_path) == ["bin"]


def test_one_command_for_each_file_with_what_was_said_of_it() -> None:
    files = [InputFile(f"/d/{n}.h5", f"data/{n}.h5", {"number": str(n)}) for n in (1, 2)]
    definition = checked_definition(
        {
            "name": "w",
            "stages": {"1": {"command": "x $filePath $number", "outputs": ["out/$number.h5"], "workingDir": "$dir"}},
        }
    )
    made = commands_for(definition, "1", {"number": "2", "dir": "/d/a b"}, files)
    assert [(c.file, c.environment["number"], c.outputs, c.working_dir) for c in made] == [
        (0, "1", ("out/1.h5",), "/d/a b"),
        (1, "2", ("out/2.h5",), "/d/a b"),
    ]
    assert made[0].shown == "x /d/1.h5 1"
