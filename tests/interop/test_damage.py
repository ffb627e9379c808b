"""Whatever is wrong with a release, it is told in a line: by `load`, `eval.py` and `unified`."""

import itertools
import resource
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.interop import damage


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return damage.make(tmp_path_factory.mktemp("damage") / "sound")


@pytest.fixture(scope="module", autouse=True)
def quick():
    with damage.quick():
        yield


def each_once(cases):
    """One case of each group, another kind from group to group, so that all kinds are there."""
    groups = [[*group] for _, group in itertools.groupby(cases, lambda case: case.group)]
    return [group[i % len(group)] for i, group in enumerate(groups)]


def test_the_sound_release_is_told_nothing_of(sound):
    nothing = damage.Case("nothing", "", lambda folder: None)
    assert not damage.tried(nothing, sound, damage.loads)
    assert not damage.tried(nothing, sound, damage.evaluates)


@pytest.mark.parametrize("how", [damage.loads, damage.evaluates], ids=["load", "eval"])
def test_a_field_of_the_config_that_is_wrong_is_told(how, sound):
    cases = each_once(damage.of_fields(sound))
    told, wrong = damage.faults(cases, sound, how)
    assert not wrong
    assert len(told) > len(cases) / 2
    fields = [name.partition("=")[0].split(".")[1] for name in told]
    assert {"recipe", "model", "layout", "data", "drawing", "optimizer"} <= {*fields}


def test_a_tensor_that_is_wrong_is_told(sound):
    cases = each_once(damage.of_tensors(sound))
    told, wrong = damage.faults(cases, sound, damage.loads)
    assert not wrong
    assert told.keys() == {case.name for case in cases}


def test_a_file_that_is_wrong_is_told(sound):
    cases = [case for case in damage.of_files(sound) if not case.name.startswith("tokenizer.json")]
    told, wrong = damage.faults(cases, sound, damage.loads)
    assert not wrong
    missed = {case.name for case in cases} - told.keys()
    assert missed == {"config.json: without its last character"}  # a line break


def test_checksums_that_are_wrong_are_told(sound):
    cases = list(damage.of_checksums(sound))
    some = each_once(cases) + [case for case in cases if ": of 2**40" in case.name]
    some = list({case.name: case for case in some}.values())
    told, wrong = damage.faults(some, sound, damage.loads)
    assert not wrong
    missed = {case.name for case in some} - told.keys()
    assert missed <= {"checksums.json: without its last character"}  # a line break


def test_a_tokenizer_that_is_wrong_is_told(sound):
    files = [case for case in damage.of_files(sound) if case.name.startswith("tokenizer.json")]
    told, wrong = damage.faults(files, sound, damage.loads)
    assert not wrong
    assert len(told) > 0.9 * len(files)
    _, wrong = damage.faults(each_once(damage.of_tokenizer(sound)), sound, damage.loads)
    assert not wrong


FILES = st.sampled_from(["config.json", "model.safetensors", "tokenizer.json"])


@given(name=FILES, at=st.integers(0, 20_000), new=st.binary(min_size=1, max_size=9))
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_bytes_that_are_wrong_are_told_or_change_what_they_say(name, at, new, sound):
    case = damage.Case(f"{name}[{at}]={new!r}", name, damage.overwritten(name, at, new))
    assert not damage.faults([case], sound, damage.loads)[1]


def test_the_command_tells_it_with_status_1(sound):
    cases = each_once(damage.of_tensors(sound))[::20]
    told, wrong = damage.faults(cases, sound, damage.commands)
    assert not wrong
    assert len(told) == len(cases)


def test_numbers_of_any_size_take_neither_time_nor_memory(sound):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fields = (
        "backbone.num_layers",
        "backbone.head_dim",
        "autoencoder.decoder_blocks",
        "parts.text.vocab_size",
    )
    names = {f"config.model.{field}={10**9}" for field in fields}
    sizes = [case for case in damage.of_fields(sound) if case.name in names]
    told, wrong = damage.faults(sizes, sound, damage.loads)
    assert not wrong and told.keys() == names
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1_000_000  # kB
    layers = told["config.model.backbone.num_layers=1000000000"]
    assert "misshaped: backbone/runs/0/gen/attention/key/kernel is (1, " in layers
    blocks = told["config.model.autoencoder.decoder_blocks=1000000000"]
    assert "config.model asks for more parameters than lie beside it" in blocks


def test_numbers_beyond_32_bits_are_told_wherever_they_stand(sound):
    cases = [case for case in damage.of_fields(sound) if case.name.endswith("=1e+39")][::9]
    told, wrong = damage.faults(cases, sound, damage.loads)
    assert not wrong and told.keys() == {case.name for case in cases}


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["eval.py", "--checkpoint", "DIR", "--output", "DIR/out"], 2),
        (["-m", "unified.cli", "generate", "x", "--checkpoint", "DIR", "-o", "DIR/out.png"], 1),
    ],
    ids=["eval", "unified"],
)
def test_a_shell_sees_one_line_and_the_status(command, status, sound, tmp_path):
    folder = tmp_path / "damaged"
    damage.copied(sound, folder)
    damage.overwritten("config.json", 3, b"\xff\x1b[31m\n")(folder)
    arguments = [part.replace("DIR", str(folder)) for part in command]
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (status, "")
    assert run.stderr.count("\n") == 1
    assert "config.json is damaged" in run.stderr
