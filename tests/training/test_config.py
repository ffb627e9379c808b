"""Every field has a default and an override; a field that does not exist is named."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from unified.training.config import keep, load

TOY = "tests/training/toy_config.py"


def toy(*overrides: str) -> ConfigDict:
    return load(TOY, [f"--config.{text}" for text in overrides])


def test_fields_that_the_file_leaves_out_have_defaults():
    config = toy()
    assert config.mesh.to_dict() == {"data": 1, "fsdp": -1, "tensor": 1}
    assert config.checkpoint.to_dict() == {"every": 5, "keep": 2, "best": "validation/loss"}
    assert config.optimizer.b2 == 0.95
    assert config.optimizer.eps == 1e-8  # Optax's own default


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("optimizer.learning_rate=1e-4", 1e-4),
        ("optimizer.learning_rate=1", 1.0),
        ("optimizer.schedule=constant", "constant"),
        ("optimizer.nesterov=true", True),
        ("optimizer.mu_dtype=bfloat16", "bfloat16"),
        ("validation.tasks=easy", ("easy",)),
        ("validation.tasks=['easy','hard']", ("easy", "hard")),
        ("optimizer.multipliers=(('head',0.1),)", (("head", 0.1),)),
        ("load={'head':'a/b'}", ConfigDict({"head": "a/b"})),
        ("model.width=32", 32),
        ("remat=[[0, 4]]", [[0, 4]]),  # a name may give way to a list
        ("loss_weights={'text': 2}", ConfigDict({"text": 2})),  # not "size" as well
    ],
)
def test_override_sets_a_field_in_its_own_type(text, value):
    config = toy(text)
    for name in text.partition("=")[0].split("."):
        config = config[name]
    assert config == value
    assert type(config) is type(value)


def test_options_of_another_optimizer_become_fields():
    config = toy("optimizer.b1=0.8", "optimizer.name=lion")
    assert (config.optimizer.b1, "eps" in config.optimizer) == (0.8, False)


@pytest.mark.parametrize("text", ["optimizer.name=sgd", "optimizer={'name': 'sgd'}"])
def test_options_of_the_optimizer_that_is_left_go_with_it(text, caplog):
    config = toy(text, "optimizer.momentum=0.9")
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("sgd", 1e-2)
    assert not {"b2", "weight_decay"} & set(config.optimizer)
    assert "config.optimizer.b2 is no option of sgd" in caplog.text


def test_a_dict_sets_the_fields_that_it_names():
    config = toy("validation={'every': 10, 'tasks': 'easy'}", "checkpoint.every=10")
    assert config.validation.to_dict() == {"every": 10, "batches": 2, "tasks": ("easy",)}


def emoji(*overrides: str) -> ConfigDict:
    return load("configs/emoji.py", [f"--config.{text}" for text in overrides])


MINE = {"mine": {"format": "jsonl", "path": "x"}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.train", MINE),
        ("data.validation", MINE),
        ("data.train.emoji", {"format": "jsonl", "path": "x"}),
        ("data.train.emoji.tasks", {"vqa": 1.0}),
        ("data.dropout", {"vae": 0.1}),
        ("layout.lanes", {"words": {"kind": "text", "stream": "und"}}),
        ("layout.lanes.vit", {"kind": "text", "stream": "und", "view": "vit"}),
        ("model.backbone.streams", {"all": {"embed_dim": 8, "mlp_dim": 8}}),
        ("benchmark", {"module": "unified.evaluation.samples", "sources": MINE}),
    ],
)
def test_a_dict_takes_the_place_of_what_the_user_names(path, value):
    config = emoji(f"{path}={value}")
    for name in path.split("."):
        config = config[name]
    assert config.to_dict() == value


@pytest.mark.parametrize("path", ["data.train.mine", "layout.lanes.mine", "model.parts.mine"])
def test_a_dict_adds_what_the_user_names(path):
    """Beside what is there, which stays."""
    config, before = emoji(f"{path}={MINE['mine']}"), emoji()
    for name in path.split(".")[:-1]:
        config, before = config[name], before[name]
    assert config.to_dict() == {**before.to_dict(), **MINE}


def test_a_dict_inside_another_replaces_sources_alone():
    config = emoji(f"data={{'train': {MINE}, 'threads': 1}}")
    assert config.data.train.to_dict() == MINE
    assert (config.data.threads, config.data.prefetch) == (1, 2)
    assert "caption" in config.data.validation


def test_a_dict_that_names_no_kind_sets_fields_of_what_is_there():
    config = emoji("data.train.emoji={'icons': 0.5}", "benchmark={'examples_per_task': 3}")
    assert config.data.train.emoji.icons == 0.5
    assert "tasks" in config.data.train.emoji
    assert config.benchmark.module == "unified.worlds.emoji.benchmark"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data={'trian': {}}", "unknown field 'trian' of config.data; did you mean 'train'"),
        ("data.train.emoji={'icon': 0.5}", "unknown field 'icon' of config.data.train.emoji"),
        ("layout.lanes.vit={'bugdet': 1}", "unknown field 'bugdet' of config.layout.lanes.vit"),
        ("model.backbone={'num_layer': 1}", "unknown field 'num_layer' of config.model.backbone"),
    ],
)
def test_misspelt_fields_of_a_dict_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        emoji(text)


@pytest.mark.parametrize(
    ("file", "text", "value"),
    [
        ("emoji.py", "drawing.renorm=channel", "channel"),
        ("emoji.py", "model.backbone.qkv_bias=true", True),
        ("emoji.py", "benchmark.shown=2", 2),
        ("emoji.py", "data.train.emoji.length=128", 128),
        ("emoji.py", "data.train.emoji.weight=2", 2.0),
        ("emoji_y.py", "layout.lanes.vae.tasks=edit", ("edit",)),
        ("folder.py:x", "benchmark.examples=2", 2),
        ("folder.py:x", "data.train.folder.image_root=y", "y"),  # of its own format
        ("folder.py:x", "benchmark.sources.folder.variants=2", 2),  # of all formats
        ("autoencoder.py", "data.lookahead=8", 8),
    ],
)
def test_a_field_that_the_file_leaves_to_the_recipe_can_be_overridden(file, text, value):
    config = load(f"configs/{file}", [f"--config.{text}"])
    for name in text.partition("=")[0].split("."):
        config = config[name]
    assert config == value and type(config) is type(value)


def test_fields_left_to_the_recipe_are_those_of_what_is_named_now():
    samples = "benchmark={'module': 'unified.evaluation.samples', 'sources': {}}"
    assert emoji(samples, "benchmark.examples=3").benchmark.examples == 3
    assert emoji("drawing={'renorm_min': 0.5}").drawing.renorm_min == 0.5
    with pytest.raises(ValueError, match=r"config.benchmark; there are: examples, module, "):
        emoji(samples, "benchmark.icons=False")
    with pytest.raises(ValueError, match=r"'images' of config.drawing; did you mean 'image_scale'"):
        emoji("drawing.images=1")
    with pytest.raises(
        ValueError, match=r"'zz' of config.drawing; there are: candidates, .*renorm"
    ):
        emoji("drawing.zz=1")
    with pytest.raises(ValueError, match=r"'zz' of config.data.train.emoji.icons; "):
        emoji("data.train.emoji.icons.zz.y=1")
    with pytest.raises(ValueError, match=r"unknown field 'foo' of config; "):
        emoji("recipe=nope", "foo=1")


def test_only_optimizers_are_offered_in_place_of_an_unknown_one():
    with pytest.raises(ValueError, match="Optax has no 'nosuch'; there are: ") as e:
        toy("optimizer.name=nosuch")
    offered = str(e.value).partition("there are: ")[2].split(", ")
    assert {"adamw", "sgd", "muon", "ademamix"} <= set(offered)
    assert not {"add_noise", "apply_every", "scale_by_learning_rate", "chain"} & set(offered)
    assert not [name for name in offered if name.startswith("_")]
    for name in offered:
        assert load(TOY, [f"--config.optimizer.name={name}"]).optimizer.name == name


@pytest.mark.parametrize("name", ["losses", "scale_by_adam", "__getattr__", "noisy"])
def test_what_is_no_optimizer_is_refused(name):
    with pytest.raises(ValueError, match=f"optimizer.name: Optax has no '{name}'"):
        toy(f"optimizer.name={name}")


def test_lists_and_names_give_way_to_one_another():
    file = "configs/emoji_h.py"
    assert load(file).model.backbone.joint == ((1, 5),)
    assert load(file, ["--config.model.backbone.joint=all"]).model.backbone.joint == "all"
    ranges = load("configs/emoji.py", ["--config.model.backbone.joint=((0,2),)"])
    assert ranges.model.backbone.joint == ((0, 2),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "optimizer.learning_rat=1",
            "unknown field 'learning_rat' of config.optimizer; did you mea",
        ),
        ("model.widht=1", "'widht' of config.model; did you mean 'width'"),
        ("batchsize=1", "'batchsize' of config; did you mean 'batch_size'"),
        ("seed.x=1", "unknown field 'x' of config.seed"),
        ("optimizer.name=adamm", "Optax has no 'adamm'; did you mean 'adam"),
        ("mesh.fdsp=8", "'fdsp' of config.mesh; did you mean 'fsdp'"),
        ("batch_size=many", "batch_size='many': expected int like 8"),
        ("total_steps=0", "total_steps=0 must be from 1 to 2147483647"),
        ("accumulation=3", "accumulation=3 must divide batch_size=8"),
        ("ema.decay=1.0", r"ema.decay=1.0 must be in \[0, 1\)"),
        ("ema.decay=-0.5", r"ema.decay=-0.5 must be in \[0, 1\)"),
        ("seed=-1", "seed=-1 must be from 0 to 2147483647"),
        ("seed=2147483648", "seed=2147483648 must be from 0 to 2147483647"),
        ("max_minutes=-1", "max_minutes=-1.0 must be at least 0"),
        ("max_minutes=1e999", "max_minutes=inf must be at least 0"),
        ("optimizer.clip_norm=-1", "optimizer.clip_norm=-1.0 must be at least 0"),
        ("optimizer.warmup_steps=-5", "optimizer.warmup_steps=-5 must be at least 0"),
        ("optimizer.learning_rate=-1e-3", "optimizer.learning_rate=-0.001 must be at least 0"),
        ("optimizer.final_fraction=2", "optimizer.final_fraction=2.0 must be from 0 to 1"),
        ("optimizer.b2=1", r"optimizer.b2=1.0 must be in \[0, 1\)"),
        ("freeze=('a{99999999999999999999}',)", "freeze: 'a{9+}' is no regular expression"),
        ("optimizer.multipliers=(('a',1e39),)", "optimizer.multipliers=.* must be pairs"),
        ("checkpoint.keep=0", "checkpoint.keep=0 must be at least 1"),
        ("validation.every=-1", "validation.every=-1 must be at least 0"),
        ("loss_weights={'text': 1e999}", "loss_weights.text=inf must be a finite number"),
        ("loss_weights={'text': 'x'}", "loss_weights.text='x' must be a number"),
        ("checkpoint.every=6", "checkpoint.every=6 must be a multiple of 5"),
        ("validation.every=0", "checkpoint.best needs validation"),
        ("validation.batches=0", "validation.batches must be at least 1"),
        ("loss_weights={}", "loss_weights is empty"),
        ("validation={'evry': 2}", "'evry' of config.validation; did you mean 'every'"),
        ("optimizer={'b2': 'x'}", "config.optimizer.b2='x': expected float"),
    ],
)
def test_mistakes_say_what_to_change(text, message):
    with pytest.raises(ValueError, match=message):
        toy(text)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("config.optimzer = {}", "config.optimzer: did you mean 'optimizer'"),
        ("config.ema.dekay = 1", "unknown config.ema.dekay; did you mean 'decay'"),
        (
            "config.optimizer.eps_rot = 1",
            "unknown config.optimizer.eps_rot; did you mean 'eps_root'",
        ),
        ("del config.loss_weights", "config lacks loss_weights"),
    ],
)
def test_mistakes_in_a_config_file_say_what_to_change(tmp_path, extra, message):
    file = tmp_path / "mine.py"
    text = Path(TOY).read_text()
    file.write_text(text.replace("    return config", f"    {extra}\n    return config"))
    with pytest.raises(ValueError, match=message):
        load(str(file))


def test_argument_after_a_colon_goes_to_get_config(tmp_path):
    file = tmp_path / "mine.py"
    text = Path(TOY).read_text().replace("get_config()", "get_config(width='8')")
    file.write_text(text.replace('{"width": 16}', '{"width": int(width)}'))
    assert load(str(file)).model.width == 8
    assert load(f"{file}:24").model.width == 24
    with pytest.raises(ValueError, match=f"{TOY}:8: too many positional arguments of get_config"):
        load(f"{TOY}:8")
    with pytest.raises(ValueError, match="no such Python file"):
        load(str(tmp_path / "other.py"))
    with pytest.raises(ValueError, match=r"has no get_config\(\)"):
        load("unified/sequence.py")
    with pytest.raises(ValueError, match="unknown argument 'hello'"):
        load(TOY, ["hello"])


def test_kept_config_tells_what_changed(tmp_path):
    path = tmp_path / "config.json"
    assert keep(toy(), path) == []
    assert keep(toy("model.width=8"), path) == ["config.model.width: 16 -> 8"]
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("text", ["{\n", "[]", ""])
def test_a_kept_config_that_is_damaged_is_named_and_left(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"config\.json is damaged .*: delete it, the same command"
    ):
        keep(toy(), path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("beta=2.0", "beta=2.0 must be from 0 to 1"),
        ("adam_b2=0.99999999", r"adam_b2=0.99999999 must be in \[0, 1\)"),  # 1 in 32 bits
        ("ns_steps=0", "ns_steps=0 must be at least 1"),
        ("weight_decay=-0.1", "weight_decay=-0.1 must be at least 0"),
        ("adam_weight_decay=-0.1", "adam_weight_decay=-0.1 must be at least 0"),
        ("multipliers=(('head',-1.0),)", r"multipliers: \('head', -1.0\) must be at least 0"),
    ],
)
def test_numbers_of_an_optimizers_own_are_bounded(field, message):
    with pytest.raises(ValueError, match=f"optimizer.{message}"):
        emoji(f"optimizer.{field}")


def test_a_pattern_that_python_warns_of_says_nothing(recwarn):
    toy("freeze=('[[a]b',)")
    assert not recwarn.list
