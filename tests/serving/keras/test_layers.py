"""Each layer, with each of its arguments, gives what Keras gives: from the model itself, and from each kind of file."""

import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

import syftlite as sy
from serving.keras.models import Checked, functional, images, sequential
from syftlite.errors import UnsupportedLayerError
from syftlite.serving.keras import from_keras
from syftlite.serving.keras.call import LAYERS

IMAGE, TALL, ROW, TABLE = (7, 8, 4), (4, 7, 8), (6,), (5, 6)

ONE_INPUT = [
    (L.Dense(3), ROW),
    (L.Dense(3, activation="relu", use_bias=False), TABLE),
    (L.Dense(3, activation="softmax"), IMAGE),
    (L.Conv2D(5, 3), IMAGE),
    (L.Conv2D(5, (2, 3), strides=(2, 3), padding="same", activation="relu"), IMAGE),
    (L.Conv2D(5, 4, strides=2, padding="same", use_bias=False), IMAGE),
    (L.Conv2D(5, 3, dilation_rate=(2, 1), padding="same"), IMAGE),
    (L.Conv2D(6, 2, groups=2, activation="tanh"), IMAGE),
    (L.Conv2D(5, 3, padding="same", strides=2, data_format="channels_first"), TALL),
    (L.DepthwiseConv2D(3), IMAGE),
    (L.DepthwiseConv2D(3, depth_multiplier=2, strides=2, padding="same", activation="relu"), IMAGE),
    (L.DepthwiseConv2D((2, 3), dilation_rate=2, use_bias=False), IMAGE),
    (L.DepthwiseConv2D(3, depth_multiplier=3, data_format="channels_first"), TALL),
    (L.SeparableConv2D(5, 3, padding="same", depth_multiplier=2, activation="relu"), IMAGE),
    (L.SeparableConv2D(5, 3, strides=2, use_bias=False, data_format="channels_first"), TALL),
    (L.AveragePooling2D(2), IMAGE),
    (L.AveragePooling2D((2, 3), strides=(1, 2), data_format="channels_first"), TALL),
    (L.AveragePooling2D(3, strides=1, padding="same"), IMAGE),
    (L.MaxPooling2D((3, 2)), IMAGE),
    (L.MaxPooling2D(3, strides=2, padding="same"), IMAGE),
    (L.MaxPooling2D(2, strides=2, padding="same", data_format="channels_first"), TALL),
    (L.GlobalAveragePooling2D(), IMAGE),
    (L.GlobalAveragePooling2D(keepdims=True, data_format="channels_first"), TALL),
    (L.GlobalMaxPooling2D(), IMAGE),
    (L.GlobalMaxPooling2D(keepdims=True), IMAGE),
    (L.ZeroPadding2D(), IMAGE),
    (L.ZeroPadding2D(((1, 2), (0, 3))), IMAGE),
    (L.ZeroPadding2D((2, 1), data_format="channels_first"), TALL),
    (L.BatchNormalization(), IMAGE),
    (L.BatchNormalization(axis=1), IMAGE),
    (L.BatchNormalization(axis=2, epsilon=0.1, center=False), TABLE),
    (L.BatchNormalization(scale=False), ROW),
    (L.LayerNormalization(), ROW),
    (L.LayerNormalization(axis=(1, 3), epsilon=0.1, center=False), IMAGE),
    (L.LayerNormalization(axis=[-2, -1]), TABLE),
    *[(L.Activation(name), ROW) for name in ("linear", "relu", "relu6", "leaky_relu", "softmax", "log_softmax", "sigmoid", "tanh")],
    *[(L.Activation(name), ROW) for name in ("softplus", "elu", "selu", "silu", "swish", "gelu", "exponential")],
    (L.ReLU(), IMAGE),
    (L.ReLU(max_value=0.5), ROW),
    (L.ReLU(max_value=0.5, negative_slope=0.1), ROW),
    (L.LeakyReLU(), ROW),
    (L.LeakyReLU(negative_slope=0.01), IMAGE),
    (L.Softmax(), TABLE),
    (L.Softmax(axis=1), IMAGE),
    (L.Flatten(), IMAGE),
    (L.Flatten(), ROW),
    (L.Flatten(data_format="channels_first"), TALL),
    (L.Flatten(data_format="channels_first"), TABLE),
    (L.Reshape((4, -1)), IMAGE),
    (L.Reshape((3, 2)), ROW),
    (L.Permute((3, 1, 2)), IMAGE),
    (L.Dropout(0.5), ROW),
    (L.SpatialDropout2D(0.5), IMAGE),
    (L.GaussianNoise(0.5), ROW),
    (L.Rescaling(1 / 3, offset=-0.5), IMAGE),
    (L.Embedding(11, 3), (5,)),
]


def told(case):
    layer, shape = case
    return f"{layer.name} {shape}"


@pytest.mark.parametrize("kind", ["model", "keras", "h5", "weights"])
@pytest.mark.parametrize("case", ONE_INPUT, ids=told)
def test_a_layer_is_as_in_keras(case, kind, tmp_path):
    layer, shape = case
    numbers = layer.input_dim if isinstance(layer, L.Embedding) else None
    Checked(sequential([layer], shape, numbers), tmp_path).agrees(kind)


# after a convolution the channels are in front: what follows meets them there
AFTER_A_CONVOLUTION = [
    L.Flatten(),
    L.Reshape((-1, 6)),
    L.Permute((2, 3, 1)),
    L.Dense(3),
    L.BatchNormalization(),
    L.BatchNormalization(axis=2),
    L.LayerNormalization(),
    L.LayerNormalization(axis=(3, 1)),
    L.Softmax(),
    L.Softmax(axis=2),
    L.Activation("log_softmax"),
    L.GlobalMaxPooling2D(),
    L.GlobalAveragePooling2D(keepdims=True),
    L.Conv2D(3, 2, data_format="channels_first"),
    L.AveragePooling2D(2, data_format="channels_first"),
    L.ZeroPadding2D(1),
]


@pytest.mark.parametrize("layer", AFTER_A_CONVOLUTION, ids=lambda layer: layer.name)
def test_axes_after_a_convolution(layer, tmp_path):
    Checked(sequential([L.Conv2D(4, 2), layer], IMAGE), tmp_path).agrees("model")


MERGES = [
    (L.Add(), 3),
    (L.Subtract(), 2),
    (L.Multiply(), 3),
    (L.Average(), 3),
    (L.Maximum(), 3),
    (L.Minimum(), 2),
    (L.Concatenate(), 3),
    (L.Concatenate(axis=1), 2),
    (L.Concatenate(axis=-2), 2),
]


@pytest.mark.parametrize("kind", ["model", "keras", "h5"])
@pytest.mark.parametrize("merge", MERGES, ids=lambda case: case[0].name)
def test_layers_of_several_inputs(merge, kind, tmp_path):
    layer, count = merge
    inputs = [keras.Input((6, 6, 2)) for _ in range(count)]
    convolved = layer([L.Conv2D(2, 1)(x) for x in inputs])
    Checked(functional(inputs, convolved), tmp_path).agrees(kind)
    as_they_are = layer(inputs)
    Checked(functional(inputs, as_they_are), tmp_path).agrees(kind)
    mixed = layer([L.Conv2D(2, 1)(inputs[0]), *inputs[1:]])
    Checked(functional(inputs, mixed), tmp_path).agrees(kind)


def test_a_sum_with_fewer_channels_repeats_them(tmp_path):
    inputs = [keras.Input((6, 6, 2)), keras.Input((1, 6, 1))]
    Checked(functional(inputs, L.Add()([L.Conv2D(2, 1)(inputs[0]), inputs[1]])), tmp_path).agrees("model")


@given(
    size=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["same", "valid"]),
    layer=st.sampled_from(["Conv2D", "DepthwiseConv2D", "MaxPooling2D", "AveragePooling2D"]),
    first=st.booleans(),
)
@settings(max_examples=60)
def test_windows(size, kernel, strides, dilation, padding, layer, first):
    """Any size, stride, dilation and padding: the odd row of padding is at the end."""
    if max(strides) > 1 and max(dilation) > 1:
        dilation = (1, 1)  # Keras refuses both
    options = {"strides": strides, "padding": padding, "data_format": "channels_first" if first else "channels_last"}
    if "Pooling" in layer:
        dilation = (1, 1)
        made = getattr(L, layer)(kernel, **options)
    else:
        made = getattr(L, layer)(*([3] if layer == "Conv2D" else []), kernel, dilation_rate=dilation, **options)
    if padding == "valid" and any(d * (k - 1) + 1 > n for n, k, d in zip(size, kernel, dilation)):
        return
    model = sequential([made], (2, *size) if first else (*size, 2))
    try:
        graph = from_keras(model)
    except UnsupportedLayerError as refused:
        assert layer == "AveragePooling2D" and padding == "same" and "repeats the border" in str(refused)
        return
    x = images(model)[0]
    assert np.abs(graph.run(torch.tensor(x)).numpy() - keras.ops.convert_to_numpy(model(x))).max() < 1e-4


def test_a_mean_leaves_padding_out_where_keras_is_not_on_torch(tmp_path):
    model = sequential([L.AveragePooling2D(2, padding="same")], (3, 3, 1))
    graph = from_keras(model, backend="tensorflow")
    x = torch.arange(9.0).view(1, 3, 3, 1)
    assert graph.run(x).flatten().tolist() == [2.0, 3.5, 6.5, 8.0]  # TensorFlow's, for this input


def test_a_layer_norm_of_an_axis_in_the_middle():
    """Keras 3 on torch normalizes another axis there, or fails; on other backends it does what it says."""
    model = sequential([L.LayerNormalization(axis=1)], TABLE)
    gamma, beta = (torch.tensor(array) for array in model.get_weights())
    x = torch.tensor(images(model)[0])
    wanted = torch.nn.functional.layer_norm(x.mT, (5,), gamma, beta, 1e-3).mT
    assert torch.allclose(from_keras(model).run(x), wanted, atol=1e-5)


def test_every_layer_of_the_table_is_here():
    tested = {type(layer).__name__ for layer, _ in ONE_INPUT} | {type(layer).__name__ for layer, _ in MERGES}
    assert set(LAYERS) - tested == {"GaussianDropout", "AlphaDropout", "ActivityRegularization"}  # noise of training, like Dropout


@pytest.mark.parametrize(
    ("layer", "shape", "text"),
    [
        (L.Conv1D(3, 2, name="tail"), TABLE, "layer 'tail': there is no form here for Conv1D; there is for Activation, ActivityReg"),
        (L.Lambda(lambda x: x, name="tail"), ROW, "no form here for Lambda"),
        (L.LSTM(2, name="tail"), TABLE, "no form here for LSTM"),
        (L.Dense(2, activation="hard_sigmoid", name="tail"), ROW, "layer 'tail': Dense's activation is 'hard_sigmoid'; there are elu, "),
        (L.Activation("mish", name="tail"), ROW, "layer 'tail': Activation's activation is 'mish'"),
        (L.ReLU(threshold=0.5, name="tail"), ROW, "layer 'tail': ReLU's threshold is 0.5, and 0 is served"),
        (L.Softmax(axis=(1, 2), name="tail"), TABLE, r"layer 'tail': Softmax's axis is \[1, 2\]"),
        (
            L.BatchNormalization(renorm=True, name="tail"),
            ROW,
            "layer 'tail': BatchNormalization's renorm is 'True', which has no form here",
        ),
        (L.Embedding(4, 2, mask_zero=True, name="tail"), (5,), "layer 'tail': Embedding's mask_zero is 'True'"),
        (L.Dense(2, dtype="int8_from_float32", name="tail"), ROW, "layer 'tail': Dense's dtype is "),
    ],
    ids=lambda value: getattr(value, "name", None) and type(value).__name__,
)
def test_what_has_no_form_is_named(layer, shape, text):
    model = keras.Sequential([keras.Input(shape), layer])
    with pytest.raises(UnsupportedLayerError, match=text) as caught:
        from_keras(model)
    assert caught.value.layer == "tail"


def test_a_model_in_a_model_is_named():
    inner = keras.Sequential([keras.Input(ROW), L.Dense(2)], name="inner")
    with pytest.raises(UnsupportedLayerError, match="layer 'inner': there is no form here for Sequential"):
        from_keras(keras.Sequential([keras.Input(ROW), inner]))


def test_several_outputs_are_named():
    x = keras.Input(ROW)
    with pytest.raises(UnsupportedLayerError, match="layer 'two': it has 2 outputs"):
        from_keras(keras.Model(x, [L.Dense(2)(x), L.Dense(2)(x)], name="two"))


def test_a_layer_that_is_used_twice(tmp_path):
    a, b = keras.Input(ROW), keras.Input(ROW)
    twice = L.Dense(6, activation="relu")
    Checked(functional([a, b], L.Concatenate()([twice(twice(a)), twice(b)])), tmp_path).agrees("keras")


def test_what_the_output_does_not_need_is_left_out():
    x = keras.Input(ROW)
    hidden = L.Dense(2, name="hidden")(x)
    L.LSTM(3)(L.Reshape((2, 1))(hidden))
    graph = from_keras(keras.Model(x, hidden))
    assert [node.name for node in graph.nodes] == ["hidden"]


def test_a_residual_network(tmp_path):
    x = keras.Input((8, 8, 3))
    y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x))
    y = L.Add()([y, L.Conv2D(4, 3, padding="same", activation="relu")(L.ReLU()(y))])
    y = L.Concatenate()([L.MaxPooling2D(2)(y), L.AveragePooling2D(2)(y)])
    y = L.Dense(5)(L.Dropout(0.3)(L.Flatten()(y)))
    checked = Checked(functional([x], y), tmp_path)
    for kind in ("model", "keras", "h5", "weights"):
        checked.agrees(kind)


def test_the_graph_keeps_the_layers_names():
    model = keras.Sequential(
        [keras.Input(IMAGE), L.Conv2D(2, 3, activation="relu", name="see"), L.Flatten(name="row"), L.Dense(2, name="say")]
    )
    assert [node.name for node in from_keras(model).nodes] == ["see.permute", "see", "see.relu", "row", "say"]


def test_functions_in_the_middle_are_computed_on_shares():
    between = [L.Activation(name) for name in ("gelu", "silu", "elu", "selu", "tanh", "softplus")]
    hidden = [layer for activation in between for layer in (L.Dense(6), activation)]
    model = sequential([*hidden, L.Dense(6, activation="softmax"), L.LayerNormalization(), L.Dense(3, activation="sigmoid")], ROW)
    (x,) = images(model)
    workers = [sy.VirtualWorker(id=f"keras {name}") for name in ("alice", "bob", "carol")]
    alice, bob, carol = workers
    with sy.serve(model, alice, bob, crypto_provider=carol, name="functions"):
        found = sy.connect_to_model(alice, bob, name="functions").query(x)
    assert np.abs(found.numpy() - keras.ops.convert_to_numpy(model(x))).max() < 1e-3
    for worker in workers:
        worker.close()
