"""Convolution as matrix products against torch, over shapes drawn at random; how many outputs share a patch changes nothing."""

import torch
import torch.nn.functional as nnf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from syftlite.mpc import convolution
from syftlite.mpc.bilinear import MAPS
from syftlite.mpc.convolution import Conv, geometry

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    conv = Conv(draw(pairs), draw(st.tuples(st.integers(0, 2), st.integers(0, 2))), draw(pairs), groups, draw(st.sampled_from([(1, 1), (2, 2), (3, 1), (2, 3)])))
    image = (draw(st.integers(1, 3)), groups * draw(st.integers(1, 2)), draw(st.integers(3, 14)), draw(st.integers(3, 14)))
    weight = (groups * draw(st.integers(1, 5)), image[1] // groups, draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    return conv, image, weight


@settings(max_examples=30, deadline=None)
@given(convolutions())
def test_convolution_with_a_folded_pooling(drawn):
    conv, image, weight = drawn
    x, w = torch.randint(-99, 99, image), torch.randint(-99, 99, weight)
    try:
        want = nnf.conv2d(x.double(), w.double(), None, conv.stride, conv.padding, conv.dilation, conv.groups)
        want = nnf.avg_pool2d(want, *conv.pool, divisor_override=1).long()
    except RuntimeError:
        assume(False)
    got = MAPS["conv2d"](x.permute(0, 2, 3, 1).contiguous(), w, tuple(conv))
    assert torch.equal(got.permute(0, 3, 1, 2), want)


def test_wide_patches_and_chunks_of_images_change_nothing(monkeypatch):
    x, w = torch.randint(-99, 99, (5, 28, 28, 1)), torch.randint(-99, 99, (16, 1, 5, 5))
    conv = Conv()
    assert geometry(tuple(x.shape), tuple(w.shape), conv).wide == 4
    assert geometry(tuple(x.shape), tuple(w.shape), conv, widen=False).wide == 1
    want = nnf.conv2d(x.permute(0, 3, 1, 2).double(), w.double()).long().permute(0, 2, 3, 1)
    assert torch.equal(MAPS["conv2d"](x, w, tuple(conv)), want)
    monkeypatch.setattr(convolution, "_CHUNK_BYTES", 1)
    assert torch.equal(MAPS["conv2d"](x, w, tuple(conv)), want)
