"""Multiply-adds of any module beside closed forms, on the meta device and on the CPU; what is in no count is named."""

import doctest
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from leadline.networks.modules import count_operations, inspect_module
from leadline.networks.modules.operations import unfused

TOKENS, WIDTH, HEADS, HIDDEN = 16, 12, 2, 5
IMAGE = (WIDTH, 4, 4)
ATTENTION = 4 * TOKENS * WIDTH * WIDTH + 2 * TOKENS * TOKENS * WIDTH  # q, k, v, out; scores and their weighted sum


class Sequence(nn.Module):
    """An image's pixels as tokens, through a function; where `stuck`, with a tensor that is on the CPU for good."""

    def __init__(self, inner: nn.Module, call: Callable[[nn.Module, Tensor], Tensor], stuck: bool) -> None:
        super().__init__()
        self.inner = inner
        self.call = call
        self.stuck = stuck

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        if self.stuck:
            tokens = tokens + torch.ones(TOKENS, 1)
        return self.call(self.inner, tokens)


def attention(bias: bool = True) -> nn.Module:
    return nn.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=True)


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def square() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH, bias=False)


LSTM = TOKENS * 4 * HIDDEN * (WIDTH + HIDDEN)

CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, Tensor], Tensor], int]] = {
    "attention": (attention, lambda m, x: m(x, x, x)[0], ATTENTION),
    "attention without bias": (lambda: attention(bias=False), lambda m, x: m(x, x, x)[0], ATTENTION),
    "attention without weights": (attention, lambda m, x: m(x, x, x, need_weights=False)[0], ATTENTION),
    "cross-attention": (attention, lambda m, x: m(x, x + 1, x)[0], ATTENTION),
    "encoder layer": (
        lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, 20, batch_first=True),
        lambda m, x: m(x),
        ATTENTION + 2 * TOKENS * WIDTH * 20,
    ),
    "scaled dot product": (
        nn.Identity,
        lambda m, x: F.scaled_dot_product_attention(heads(x), heads(x), heads(x)),
        2 * TOKENS * TOKENS * WIDTH,
    ),
    "matmul": (nn.Identity, lambda m, x: torch.matmul(x, x.transpose(1, 2)), TOKENS * TOKENS * WIDTH),
    "einsum": (nn.Identity, lambda m, x: torch.einsum("bij,bkj->bik", x, x), TOKENS * TOKENS * WIDTH),
    "functional linear": (square, lambda m, x: F.linear(x, m.weight), TOKENS * WIDTH * WIDTH),
    "matrix times vector": (square, lambda m, x: m.weight @ x[0, 0], WIDTH * WIDTH),
    "added matrix times vector": (square, lambda m, x: torch.addmv(x[0, 1], m.weight, x[0, 0]), WIDTH * WIDTH),
    "vector times vector": (nn.Identity, lambda m, x: torch.dot(x[0, 0], x[0, 1]), WIDTH),
    "sum of products": (square, lambda m, x: torch.addbmm(m.weight, x.mT, x), TOKENS * WIDTH * WIDTH),
    "simple RNN": (
        lambda: nn.RNN(WIDTH, HIDDEN, batch_first=True),
        lambda m, x: m(x)[0],
        TOKENS * HIDDEN * (WIDTH + HIDDEN),
    ),
    "GRU": (
        lambda: nn.GRU(WIDTH, HIDDEN, batch_first=True),
        lambda m, x: m(x)[0],
        TOKENS * 3 * HIDDEN * (WIDTH + HIDDEN),
    ),
    "LSTM": (lambda: nn.LSTM(WIDTH, HIDDEN, batch_first=True), lambda m, x: m(x)[0], LSTM),
    "LSTM of two layers and ways": (
        lambda: nn.LSTM(WIDTH, HIDDEN, 2, batch_first=True, bidirectional=True),
        lambda m, x: m(x)[0],
        2 * LSTM + 2 * TOKENS * 4 * HIDDEN * 3 * HIDDEN,
    ),
    "LSTM cell": (lambda: nn.LSTMCell(WIDTH, HIDDEN), lambda m, x: m(x[:, 0])[0], 4 * HIDDEN * (WIDTH + HIDDEN)),
    "transposed convolution": (
        lambda: nn.ConvTranspose1d(TOKENS, 3, 5, bias=False),
        lambda m, x: m(x),
        WIDTH * TOKENS * 3 * 5,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("stuck", [False, True], ids=["meta", "cpu"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_called_is_counted(name: str, stuck: bool) -> None:
    make, call, expected = CASES[name]
    model = Sequence(make(), call, stuck)
    mode = model.training
    info = inspect_module(model, IMAGE)
    assert info.multiply_adds == sum(layer.multiply_adds for layer in info.layers) == expected
    assert info.parameters == sum(layer.parameters for layer in info.layers)
    assert info.uncounted == ()
    assert info.inference_memory > 0
    assert model.training == mode


def test_a_row_for_what_is_called_outside_of_layers() -> None:
    def call(inner: nn.Module, x: Tensor) -> Tensor:
        return inner(x, x, x)[0] @ x.mT

    rows = inspect_module(Sequence(attention(), call, stuck=False), IMAGE).layers
    assert [(row.name, row.kind, row.multiply_adds) for row in rows] == [
        ("inner", "MultiheadAttention", ATTENTION),
        ("", "Sequence", TOKENS * TOKENS * WIDTH),
    ]
    # in and out projections with their biases, though the layer of the latter is never called itself
    assert [row.parameters for row in rows] == [4 * WIDTH * WIDTH + 4 * WIDTH, 0]


UNCOUNTED = {
    "aten::_fft_r2c": (nn.Identity, lambda m, x: torch.fft.rfft(x).abs()),
    "aten::_trilinear": (lambda: nn.Bilinear(WIDTH, WIDTH, 3), lambda m, x: m(x, x)),
    "aten::_cdist_forward": (nn.Identity, lambda m, x: torch.cdist(x, x, p=1.0)),
    "aten::addmm_": (square, lambda m, x: x[0].clone().addmm_(x[0], m.weight)),
    "laboratory::double": (nn.Identity, lambda m, x: double(x)),
}


@torch.library.custom_op("laboratory::double", mutates_args=())
def double(x: Tensor) -> Tensor:
    """Return twice the values, by code that is not PyTorch's."""
    return 2 * x


@double.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


double.register_autograd(lambda context, gradient: 2 * gradient)


@pytest.mark.parametrize("name", UNCOUNTED)
def test_what_is_in_no_count_is_named(name: str) -> None:
    make, call = UNCOUNTED[name]
    assert name in inspect_module(Sequence(make(), call, stuck=False), IMAGE).uncounted


def test_a_fused_kernel_is_named_where_it_is_on() -> None:
    x = torch.ones(1, HEADS, TOKENS, WIDTH)
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION), count_operations() as operations:
        F.scaled_dot_product_attention(x, x, x)
    assert operations.multiply_adds == 0
    assert list(operations.uncounted.items()) == [("aten::_scaled_dot_product_flash_attention_for_cpu", 1)]


def test_unfused_gives_the_same_values_and_restores_what_was_on() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 20, batch_first=True).eval()
    x = torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
    before = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    with torch.no_grad():
        with unfused():
            assert not torch.backends.mha.get_fastpath_enabled()
            slow = layer(x)
        fast = layer(x)
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled) == before
    assert_close(slow, fast)


def test_inspection_changes_nothing() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(WIDTH * TOKENS, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), Decides())
    state, drawn = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    assert inspect_module(model, IMAGE).multiply_adds == WIDTH * TOKENS * 8
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Decides(nn.Module):
    """A layer that looks at values, which the meta device has not."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_an_error_is_the_modules_own() -> None:
    with pytest.raises(RuntimeError, match=r"mat1 and mat2 shapes cannot be multiplied \(1x192 and 5x3\)"):
        inspect_module(nn.Sequential(nn.Flatten(), nn.Linear(5, 3)), IMAGE)


@pytest.mark.parametrize("name", ["operations", "inspection"])
def test_examples_give_what_they_show(name: str) -> None:
    tried = doctest.testmod(sys.modules[f"leadline.networks.modules.{name}"])
    assert tried.attempted > 0 and tried.failed == 0
