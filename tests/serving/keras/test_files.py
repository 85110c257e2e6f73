"""Files of Keras: of each kind, whichever names the layers have; damaged, swollen or lying ones are refused by name."""

import io
import json
import random
import zipfile

import h5py
import keras
import numpy as np
import pytest
import torch
from keras import layers as L

from serving.keras.models import Checked, sequential
from syftlite.errors import ConfigurationError, SyftliteError
from syftlite.serving.keras import files, from_keras

LAYERS = [L.Conv2D(3, 3, activation="relu"), L.BatchNormalization(), L.Flatten(), L.Dense(4), L.Dense(2)]


@pytest.fixture
def model():
    return sequential(LAYERS, (5, 5, 2))


@pytest.fixture
def saved(model, tmp_path):
    model.save(tmp_path / "m.keras")
    return (tmp_path / "m.keras").read_bytes()


def repacked(raw, change=None, drop=(), **options):
    """The zip ``raw`` with its members changed by ``change(name, content)``."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(packed, "w", **options) as new:
        for name in old.namelist():
            if name not in drop:
                content = old.read(name)
                new.writestr(name, change(name, content) if change else content)
    return packed.getvalue()


def imported(raw, tmp_path, **options):
    path = tmp_path / "changed"
    path.write_bytes(raw)
    return from_keras(path, **options)


@pytest.mark.parametrize("suffix", ["h5", "hdf5", "weights.h5"])
def test_weights_alone_go_by_order_when_names_differ(model, suffix, tmp_path):
    """Two makings of one model have other names, as Keras numbers them."""
    again = sequential(LAYERS, (5, 5, 2))
    again.layers[0].kernel.assign(model.layers[0].kernel * 2)
    path = tmp_path / f"w.{suffix}"
    if suffix == "weights.h5":
        model.save_weights(path)
    else:
        from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

        with h5py.File(path, "w") as file:
            save_weights_to_hdf5_group(file, model)
    renamed = keras.models.model_from_json(again.to_json().replace("dense", "other"))
    x = torch.randn(2, 5, 5, 2)
    assert torch.equal(from_keras(renamed, weights=path).run(x), from_keras(model).run(x))


def test_weights_of_another_model_are_refused(model, tmp_path):
    other = sequential([L.Dense(3), L.Dense(2)], (4,))
    other.save_weights(tmp_path / "w.weights.h5")
    other.save(tmp_path / "w.h5")
    with pytest.raises(ConfigurationError, match=r"layer 'conv2d[_0-9]*' \(Conv2D\) has no kernel in the weights"):
        from_keras(model, weights=tmp_path / "w.weights.h5")
    with pytest.raises(ConfigurationError, match="it has arrays of 2 layers .*, and the model has 4"):
        from_keras(model, weights=tmp_path / "w.h5")
    wider = sequential([L.Dense(4), L.Dense(2)], (4,))
    with pytest.raises(ConfigurationError, match=r"its kernel has shape \[4, 3\], and the model asks for \[4, 4\]"):
        from_keras(wider, weights=tmp_path / "w.weights.h5")


def test_weights_that_are_not_finite_are_refused(model):
    model.layers[-1].bias.assign([float("nan"), 0.0])
    with pytest.raises(ConfigurationError, match="its bias is not finite"):
        from_keras(model)


def test_what_is_missing_is_told(model, tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        from_keras(tmp_path / "none.keras")
    model.save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(ConfigurationError, match="has weights alone: pass the model, or a file with its architecture"):
        from_keras(tmp_path / "w.weights.h5")
    (tmp_path / "a.json").write_text(model.to_json())
    with pytest.raises(ConfigurationError, match="a.json has no weights: pass weights="):
        from_keras(tmp_path / "a.json")
    with pytest.raises(ConfigurationError, match="is not what Keras saves"):
        imported(b"GIF89a", tmp_path)
    with pytest.raises(TypeError, match="a Keras model or the path of one is wanted, not int"):
        from_keras(3)


def test_a_model_without_a_shape(tmp_path):
    with pytest.raises(ConfigurationError, match="has no weights yet"):
        from_keras(keras.Sequential([L.Dense(2)]))
    with pytest.raises(ConfigurationError, match=r"has the shape .*: all of it but the batch has to be known"):
        from_keras(keras.Sequential([keras.Input((None, None, 1)), L.Conv2D(2, 2)]))


KERAS_2 = {
    "class_name": "Sequential",
    "config": {
        "name": "sequential",
        "layers": [
            {
                "class_name": "Conv2D",
                "config": {
                    "name": "conv2d",
                    "batch_input_shape": [None, 5, 5, 2],
                    "dtype": "float32",
                    "filters": 3,
                    "kernel_size": [3, 3],
                    "strides": [1, 1],
                    "padding": "valid",
                    "data_format": "channels_last",
                    "dilation_rate": [1, 1],
                    "activation": "linear",
                    "use_bias": True,
                    "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
                },
            },
            {"class_name": "AveragePooling2D", "config": {"name": "pool", "pool_size": [2, 2], "strides": [2, 2], "padding": "valid"}},
            {"class_name": "LeakyReLU", "config": {"name": "leaky", "alpha": 0.25}},
            {"class_name": "Flatten", "config": {"name": "flatten", "data_format": "channels_last"}},
            {"class_name": "Dense", "config": {"name": "dense", "units": 2, "activation": "linear", "use_bias": True}},
        ],
    },
}
"""What Keras 2 wrote, in tf.keras 1.15: the shape is the first layer's, and slopes are called alpha."""


def test_a_file_of_keras_2(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "conv2d": {"conv2d/kernel:0": rng.normal(0, 1, (3, 3, 2, 3)), "conv2d/bias:0": rng.normal(0, 1, 3)},
        "pool": {},
        "leaky": {},
        "flatten": {},
        "dense": {"dense/kernel:0": rng.normal(0, 1, (3, 2)), "dense/bias:0": rng.normal(0, 1, 2)},
    }
    with h5py.File(tmp_path / "old.hdf5", "w") as file:
        file.attrs["model_config"] = json.dumps(KERAS_2).encode()
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [name.encode() for name in arrays]
        for name, held in arrays.items():
            group = weights.create_group(name)
            group.attrs["weight_names"] = [path.encode() for path in held]
            for path, array in held.items():
                group[path] = array.astype("f4")
    graph = from_keras(tmp_path / "old.hdf5")
    x = torch.randn(2, 5, 5, 2)
    kernel, bias = (torch.tensor(a).float() for a in arrays["conv2d"].values())
    y = torch.nn.functional.avg_pool2d(torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), bias), 2)
    y = torch.nn.functional.leaky_relu(y, 0.25).permute(0, 2, 3, 1).flatten(1)
    kernel, bias = (torch.tensor(a).float() for a in arrays["dense"].values())
    assert torch.allclose(graph.run(x), y @ kernel + bias, atol=1e-4)


def test_a_functional_model_of_keras_2():
    """Its inputs are [["name", call, tensor, arguments], ...]."""
    node = [[["x", 0, 0, {}]]]
    layers = [
        {"class_name": "InputLayer", "name": "x", "config": {"name": "x", "batch_input_shape": [None, 3]}, "inbound_nodes": []},
        {"class_name": "ReLU", "name": "r", "config": {"name": "r", "max_value": None}, "inbound_nodes": node},
        {"class_name": "Add", "name": "sum", "config": {"name": "sum"}, "inbound_nodes": [[["r", 0, 0, {}], ["x", 0, 0, {}]]]},
    ]
    config = {"name": "m", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["sum", 0, 0]]}
    graph = files.parse(json.dumps({"class_name": "Model", "config": config}).encode(), "m.json")
    from syftlite.serving.keras.architecture import parse
    from syftlite.serving.keras.importer import build

    made = build(parse(graph.architecture, "m.json"), {})
    assert made.run(torch.tensor([[1.0, -2.0, 3.0]])).tolist() == [[2.0, -2.0, 6.0]]


# -- hostile files


def test_members_are_not_unpacked_beyond_their_limits(saved, tmp_path):
    bomb = repacked(saved, lambda name, content: b" " * (65 << 20) if name == "config.json" else content, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 20
    with pytest.raises(ConfigurationError, match=r"its config.json has 68,157,440 bytes, and 67,108,864 are the most"):
        imported(bomb, tmp_path)
    swollen = repacked(
        saved, lambda name, content: b"\0" * (200 << 20) if name.endswith("h5") else content, compression=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(ConfigurationError, match=r"its model.weights.h5 has 209,715,200 bytes"):
        imported(swollen, tmp_path)


def test_a_zip_that_lies_about_sizes_is_not_believed(saved, tmp_path):
    bomb = bytearray(
        repacked(saved, lambda name, content: b" " * (65 << 20) if name == "config.json" else content, compression=zipfile.ZIP_DEFLATED)
    )
    size = (65 << 20).to_bytes(4, "little")
    place = bomb.rfind(size)
    assert place > 0
    bomb[place : place + 4] = (100).to_bytes(4, "little")
    with pytest.raises(ConfigurationError, match=r"damaged zip file|more than|no JSON"):
        imported(bytes(bomb), tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.weights.h5"])
def test_a_zip_without_a_member_is_no_model(saved, missing, tmp_path):
    with pytest.raises(ConfigurationError, match=f"has no {missing}, so it is no Keras model"):
        imported(repacked(saved, drop=[missing]), tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "nested too deeply|no JSON"),
        ('{"class_name": "Sequential", "config": {"layers": ' + "[" * 900 + "]" * 900 + "}}", "no JSON object"),
        ("{}", "the model's config is no JSON object"),
        ("nonsense", "no JSON"),
        ('{"class_name": "Sequential", "config": {"layers": 3}}', "the model's layers is no list"),
        ('{"class_name": "Sequential", "config": {"layers": []}}', "its layers have no names"),
        ('{"class_name": "Evil", "config": {}}', "layer 'model': 'Evil' is neither a Sequential nor a functional model"),
        (
            '{"class_name": "Functional", "config": {"layers": [], "input_layers": [["x", 0, 0]], "output_layers": [["x", 0, 0]]}}',
            "'x' is no InputLayer",
        ),
    ],
)
def test_architectures_that_are_none(saved, text, told, tmp_path):
    with pytest.raises(SyftliteError, match=told):
        imported(repacked(saved, lambda name, content: text.encode() if name == "config.json" else content), tmp_path)


def circle(first):
    layers = [
        {"class_name": "InputLayer", "name": "x", "config": {"name": "x", "batch_shape": [None, 3]}, "inbound_nodes": []},
        {"class_name": "Add", "name": "a", "config": {"name": "a"}, "inbound_nodes": [[["x", 0, 0, {}], [first, 0, 0, {}]]]},
        {"class_name": "ReLU", "name": "b", "config": {"name": "b"}, "inbound_nodes": [[["a", 0, 0, {}]]]},
    ]
    return {"class_name": "Functional", "config": {"layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["b", 0, 0]]}}


@pytest.mark.parametrize(("first", "told"), [("b", "in a circle, at"), ("nobody", "there is none"), ("x", None)])
def test_layers_in_a_circle(saved, first, told, tmp_path):
    raw = repacked(saved, lambda name, content: json.dumps(circle(first)).encode() if name == "config.json" else content)
    if told is None:
        assert imported(raw, tmp_path).run(torch.ones(1, 3)).tolist() == [[2.0, 2.0, 2.0]]
    else:
        with pytest.raises(ConfigurationError, match=told):
            imported(raw, tmp_path)


def test_an_architecture_cannot_ask_for_much_memory(saved, tmp_path):
    layers = [
        {"class_name": "ZeroPadding2D", "config": {"name": "p", "padding": [1 << 30, 1 << 30], "batch_input_shape": [None, 2, 2, 1]}},
    ]
    text = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
    with pytest.raises(ConfigurationError, match="more than 268,435,456 elements a row|does not fit"):
        imported(repacked(saved, lambda name, content: text.encode() if name == "config.json" else content), tmp_path)


def mutations(value, rng):
    """``value`` with one place in it changed."""
    odd = [None, -1, 0, 1 << 40, 1e400, "x" * 3, [], {}, [1, 2, 3, 4, 5], True, float("nan"), {"class_name": "function", "config": [1]}]
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        return {**value, key: mutations(value[key], rng)} if rng.random() < 0.9 else {k: v for k, v in value.items() if k != key}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], mutations(value[place], rng), *value[place + 1 :]]
    return rng.choice(odd)


@pytest.mark.parametrize("form", ["sequential", "functional"])
def test_changed_architectures_are_read_or_refused(model, form):
    from syftlite.serving.keras.architecture import parse
    from syftlite.serving.keras.importer import build

    if form == "functional":
        x = keras.Input((5, 5, 2))
        model = keras.Model(x, keras.layers.Add()([L.Conv2D(2, 1)(x), x]))
    arrays = {layer.name: [np.zeros(w.shape, np.float32) for w in layer.weights] for layer in model.layers}
    base, rng, refused = json.loads(model.to_json()), random.Random(3), 0
    for _ in range(600):
        try:
            build(parse(json.dumps(mutations(base, rng)), "m"), arrays)
        except SyftliteError:
            refused += 1
    assert 100 < refused < 600


def test_changed_zips_are_read_or_refused(saved, tmp_path):
    rng, refused = random.Random(5), 0
    for _ in range(400):
        raw = bytearray(saved)
        for _ in range(rng.choice([1, 2, 8])):
            raw[rng.randrange(len(raw)) if rng.random() < 0.5 else -rng.randrange(1, 400)] = rng.randrange(256)
        try:
            imported(bytes(raw), tmp_path)
        except SyftliteError:
            refused += 1
    assert refused > 50


def test_every_way_gives_the_same(model, tmp_path):
    checked = Checked(model, tmp_path)
    x = torch.randn(3, 5, 5, 2)
    first, *others = [checked.graph(kind).run(x) for kind in ("model", "keras", "h5", "hdf5", "weights")]
    assert all(torch.equal(first, other) for other in others)
