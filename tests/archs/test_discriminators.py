"""Discriminators: names and function as published, and spectral norms that move with the optimizer only."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import SMALL, images, outputs, small
from torch import Tensor, nn

from traiNNer.archs import after_update, build_network
from traiNNer.archs.spectral_norm import SpectralNormConv2d
from traiNNer.utils.weights import load_into, read_weights

DISCRIMINATORS = [name for name in SMALL if "paragon" not in name.lower()]
every_discriminator = pytest.mark.parametrize("name", DISCRIMINATORS)


def spectral_convolutions(net: nn.Module) -> list[SpectralNormConv2d]:
    return [module for module in net.modules() if isinstance(module, SpectralNormConv2d)]


def vectors(net: nn.Module) -> list[Tensor]:
    return [value.clone() for name, value in net.named_buffers() if name.endswith(("_u", "_v"))]


def same(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def original(net: nn.Module, name: str) -> Tensor:
    return net.state_dict()[f"{name}.parametrizations.weight.original"]


def largest_singular_value(weight: Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2))


@every_discriminator
class TestSpectralNorm:
    def test_divides_by_the_largest_singular_value(self, name: str) -> None:
        net = small(name)
        for conv in spectral_convolutions(net):
            for _ in range(200):
                conv.after_update()
            assert largest_singular_value(conv.weight) == pytest.approx(1, abs=1e-3)
        assert vectors(net)

    def test_no_forward_pass_moves_the_vectors(self, name: str) -> None:
        """Not the real batch's, not the generated one's, not the generator's step, not a validation."""
        net = small(name)
        before = vectors(net)
        for mode in (True, False, True):
            outputs(net.train(mode), images(2, 3, 16, 16))[0].sum().backward()
            assert same(before, vectors(net))

    def test_the_vectors_follow_the_weights_once_per_update(self, name: str) -> None:
        net = small(name).double()
        for conv in spectral_convolutions(net):
            conv.parametrizations.weight.original.data.add_(
                0.3 * images(*conv.weight.shape, dtype=torch.float64)  # an optimizer's step
            )
        expected = []
        for conv in spectral_convolutions(net):
            norm = conv.parametrizations.weight[0]
            matrix = conv.parametrizations.weight.original.detach().flatten(1)
            u = F.normalize(matrix @ norm._v, dim=0)
            expected += [u, F.normalize(matrix.T @ u, dim=0)]
        after_update(net)
        found = vectors(net)
        assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(found, expected, strict=True))

    def test_the_estimate_stays_good_in_training(self, name: str) -> None:
        net = small(name)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        for seed in range(20):
            optimizer.zero_grad()
            torch.stack(
                [output.square().mean() for output in outputs(net, images(2, 3, 16, 16, seed=seed))]
            ).sum().backward()
            optimizer.step()
            after_update(net)
        for conv in spectral_convolutions(net):
            assert largest_singular_value(conv.weight) == pytest.approx(1, abs=0.1)

    def test_a_training_continues_exactly_from_a_saved_state(self, name: str) -> None:
        net = small(name)
        after_update(net)
        resumed = small(name)
        for _ in range(5):
            after_update(resumed)
        resumed.load_state_dict(net.state_dict())
        for both in (net, resumed):
            outputs(both, images(1, 3, 16, 16))
            after_update(both)
        assert all(torch.equal(a, b) for a, b in zip(net.buffers(), resumed.buffers(), strict=True))

    def test_is_computed_in_float32_under_autocast(self, name: str) -> None:
        """Devices differ in what autocast rounds, so within the norm it has to be off."""
        net = small(name)
        seen = []
        for conv in spectral_convolutions(net):
            conv.parametrizations.weight[0].register_forward_hook(
                lambda _, __, weight: seen.append((weight.dtype, torch.is_autocast_enabled("cpu")))
            )
        with torch.autocast("cpu", torch.bfloat16):
            outputs(net, images(1, 3, 16, 16))
        assert seen == [(torch.float32, False)] * len(spectral_convolutions(net))

    def test_every_normalized_layer_uses_torchs_parametrization(self, name: str) -> None:
        net = small(name)
        plain = {"munet": ["in_conv"], "unetdiscriminatorsn": ["conv0", "conv9"]}.get(name, [])
        convolutions = [key for key, module in net.named_modules() if isinstance(module, nn.Conv2d)]
        normalized = {
            key.split(".parametrizations")[0] for key, _ in net.named_parameters() if "parametrizations" in key
        }
        assert normalized == set(convolutions) - set(plain)


def convolve(net: nn.Module, state: Mapping[str, Tensor], name: str, x: Tensor, *, stride: int = 1) -> Tensor:
    if f"{name}.weight" in state:
        weight = state[f"{name}.weight"]
    else:
        weight = original(net, name)
        u, v = (state[f"{name}.parametrizations.weight.0.{vector}"] for vector in ("_u", "_v"))
        weight = weight / (u @ weight.flatten(1) @ v)
    padding = 1 if stride == 2 else [size // 2 for size in weight.shape[2:]]
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding, groups=groups)


class TestMUNet:
    def test_names_and_shapes_are_as_published(self) -> None:
        with torch.device("meta"):
            state = build_network({"type": "munet"}).state_dict()
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        normalized = {
            **{
                f"down_blocks.{i}.0": (64 * m, 64 * n, 4, 4)
                for i, (n, m) in enumerate([(1, 1), (1, 2), (2, 4), (4, 8)])
            },
            "mid_conv.0": (512, 512, 3, 3),
            "mid_conv.2": (512, 512, 3, 3),
            "out_conv": (1, 64, 3, 3),
        }
        expected: dict[str, tuple[int, ...]] = {
            "in_conv.weight": (64, 3, 3, 3),
            "in_conv.bias": (64,),
            "out_conv.bias": (1,),
        }
        for i, (deep, skip) in enumerate([(8, 4), (4, 2), (2, 1), (1, 1)]):
            normalized[f"up_blocks.{i}.post_upsample_conv"] = (64 * skip, 64 * deep, 3, 3)
            normalized[f"up_blocks.{i}.fusion_conv.0"] = (64 * skip, 128 * skip, 3, 3)
            for part, taps in (("sharpen", 7), ("resample_conv", 5)):
                expected[f"up_blocks.{i}.magic_upsample.{part}.conv_h.weight"] = (64 * deep, 1, 1, taps)
                expected[f"up_blocks.{i}.magic_upsample.{part}.conv_v.weight"] = (64 * deep, 1, taps, 1)
        for name, shape in normalized.items():
            expected[f"{name}.parametrizations.weight.original"] = shape
            expected[f"{name}.parametrizations.weight.0._u"] = shape[:1]
            expected[f"{name}.parametrizations.weight.0._v"] = (shape[1] * shape[2] * shape[3],)
        assert shapes == expected

    @pytest.mark.parametrize("size", [(16, 24), (19, 21)])
    def test_the_function_is_the_specified_one(self, size: tuple[int, int]) -> None:
        net = small("munet").double()
        state, x = net.state_dict(), images(2, 3, *size, dtype=torch.float64)

        def conv(name: str, y: Tensor, stride: int = 1) -> Tensor:
            return convolve(net, state, name, y, stride=stride)

        y = conv("in_conv", x)
        skips = []
        for level in range(3):
            skips.append(y)
            y = F.leaky_relu(conv(f"down_blocks.{level}.0", y, stride=2), 0.2)
        for layer in (0, 2):
            y = F.leaky_relu(conv(f"mid_conv.{layer}", y), 0.2)
        for level in range(3):
            up, skip = f"up_blocks.{level}", skips.pop()
            for axis in "hv":
                y = conv(f"{up}.magic_upsample.sharpen.conv_{axis}", y)
            rows, columns = (torch.arange(n) * m // n for n, m in zip(skip.shape[2:], y.shape[2:], strict=True))
            y = y[:, :, rows][:, :, :, columns]
            for axis in "hv":
                y = conv(f"{up}.magic_upsample.resample_conv.conv_{axis}", y)
            y = torch.cat((conv(f"{up}.post_upsample_conv", y), skip), 1)
            y = F.leaky_relu(conv(f"{up}.fusion_conv.0", y), 0.2)
        y = conv("out_conv", y)
        assert y.std() > 0.01
        assert torch.allclose(net(x), y, rtol=0, atol=1e-10)

    def test_initialization_is_kaimings_and_leaves_the_taps(self) -> None:
        torch.manual_seed(0)
        net = build_network({"type": "munet", "num_feat": 32, "ch_mult": [1, 2], "slope": 0.1})
        convolutions = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
        for name, conv in convolutions.items():
            weight = conv.weight if name == "in_conv" else original(net, name)
            gain = (2 / (1 + 0.1**2)) ** 0.5
            assert float(weight.detach().std()) == pytest.approx(gain / weight[0].numel() ** 0.5, rel=0.1), name
            assert conv.bias is None or bool((conv.bias == 0).all())
        for up in net.up_blocks:
            taps = up.magic_upsample.sharpen.conv_h.weight
            assert torch.allclose(taps[0].flatten() * 144, torch.tensor([-1.0, 6, -35, 204, -35, 6, -1]))

    def test_thawing_it_does_not_train_the_taps(self) -> None:
        """As an adversarial step does: frozen for the generator's turn, thawed for its own."""
        net = small("munet").requires_grad_(False).requires_grad_(True)
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0, weight_decay=0.1)
        before = copy.deepcopy(net.state_dict())
        net(images(1, 3, 16, 16)).sum().backward()
        optimizer.step()
        changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
        assert not any("magic_upsample" in name for name in changed)
        assert len(changed) == len(list(net.parameters()))


class TestUNet:
    @pytest.mark.parametrize("skip", [True, False])
    def test_the_function_is_real_esrgans(self, skip: bool) -> None:
        net = small("unetdiscriminatorsn", skip_connection=skip).double()
        state, x = net.state_dict(), images(2, 3, 16, 24, dtype=torch.float64)

        def conv(number: int, y: Tensor, stride: int = 1) -> Tensor:
            return convolve(net, state, f"conv{number}", y, stride=stride)

        levels = [F.leaky_relu(conv(0, x), 0.2)]
        for number in (1, 2, 3):
            levels.append(F.leaky_relu(conv(number, levels[-1], stride=2), 0.2))
        y = levels[3]
        for number in (4, 5, 6):
            y = F.leaky_relu(conv(number, F.interpolate(y, scale_factor=2, mode="bilinear")), 0.2)
            y = y + levels[6 - number] if skip else y
        y = conv(9, F.leaky_relu(conv(8, F.leaky_relu(conv(7, y), 0.2)), 0.2))
        assert torch.allclose(net(x), y, rtol=0, atol=1e-10)

    def test_layers_are_real_esrgans(self) -> None:
        with torch.device("meta"):
            net = build_network({"type": "unetdiscriminatorsn"})
        shapes = {name: tuple(m.weight.shape) for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
        widths = [(3, 64, 3), (64, 128, 4), (128, 256, 4), (256, 512, 4), (512, 256, 3)]
        widths += [(256, 128, 3), (128, 64, 3), (64, 64, 3), (64, 64, 3), (64, 1, 3)]
        assert shapes == {f"conv{n}": (after, before, k, k) for n, (before, after, k) in enumerate(widths)}
        biases = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
        assert biases == ["conv0", "conv9"]


class TestPatchGAN:
    def test_a_value_sees_70_pixels(self) -> None:
        net = build_network({"type": "patchgandiscriminatorsn", "ndf": 2}).double()
        x = images(1, 3, 160, 160, dtype=torch.float64).requires_grad_()
        y = net(x)
        (gradient,) = torch.autograd.grad(y[0, 0, y.shape[2] // 2, y.shape[3] // 2], x)
        rows = gradient.abs().sum((0, 1, 3)).nonzero()
        assert int(rows.max() - rows.min()) + 1 == 70

    def test_width_doubles_up_to_512(self) -> None:
        with torch.device("meta"):
            net = build_network({"type": "patchgandiscriminatorsn", "ndf": 96, "n_layers": 5})
        assert [conv.out_channels for conv in spectral_convolutions(net)] == [96, 192, 384, 512, 512, 512, 1]
        assert [conv.stride[0] for conv in spectral_convolutions(net)] == [2, 2, 2, 2, 2, 1, 1]

    def test_sigmoid_gives_probabilities(self) -> None:
        logits, probabilities = (small("patchgandiscriminatorsn", use_sigmoid=value) for value in (False, True))
        x = images(1, 3, 16, 16)
        assert torch.equal(probabilities(x), logits(x).sigmoid())

    def test_several_sizes_are_patchgans_of_halved_images(self) -> None:
        net = small("multiscalepatchgandiscriminatorsn", num_d=3)
        x = images(1, 3, 32, 32)
        for number, output in enumerate(net(x)):
            assert torch.equal(output, net.get_submodule(f"layer{2 - number}")(x))
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        assert x.shape[-1] == 4


def old_norm(*sizes: int, bias: bool = True) -> nn.Module:
    """As in the discriminators that are published: torch's older spectral norm."""
    inputs, outputs, kernel, stride, padding = sizes
    return nn.utils.spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias))


class PublishedUNet(nn.Module):
    """Real-ESRGAN's layout."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, n, 3, 1, 1)
        widths = [
            (n, 2 * n),
            (2 * n, 4 * n),
            (4 * n, 8 * n),
            (8 * n, 4 * n),
            (4 * n, 2 * n),
            (2 * n, n),
            (n, n),
            (n, n),
        ]
        for number, (before, after) in enumerate(widths, 1):
            kernel, stride = (4, 2) if number <= 3 else (3, 1)
            setattr(self, f"conv{number}", old_norm(before, after, kernel, stride, 1, bias=False))
        self.conv9 = nn.Conv2d(n, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [F.leaky_relu(self.conv0(x), 0.2)]
        for number in (1, 2, 3):
            levels.append(F.leaky_relu(getattr(self, f"conv{number}")(levels[-1]), 0.2))
        y = levels[3]
        for number in (4, 5, 6):
            y = F.interpolate(y, scale_factor=2, mode="bilinear")
            y = F.leaky_relu(getattr(self, f"conv{number}")(y), 0.2) + levels[6 - number]
        for number in (7, 8):
            y = F.leaky_relu(getattr(self, f"conv{number}")(y), 0.2)
        return self.conv9(y)


def published_patchgan() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 4, 2), (4, 8, 2), (8, 16, 1)):
        layers += [old_norm(before, after, 4, stride, 2), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, old_norm(16, 1, 4, 1, 2))


class PublishedPatchGAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = published_patchgan()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PublishedMultiscale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer0, self.layer1 = published_patchgan(), published_patchgan()

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.layer1(x), self.layer0(F.avg_pool2d(x, 3, 2, 1, count_include_pad=False))]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("unetdiscriminatorsn", lambda: PublishedUNet(4)),
        ("patchgandiscriminatorsn", PublishedPatchGAN),
        ("multiscalepatchgandiscriminatorsn", PublishedMultiscale),
    ],
)
def test_published_weights_load(name: str, make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(3)
    published, x = make(), images(2, 3, 32, 32)
    for _ in range(3):
        outputs(published, x)
    published.eval()
    torch.save({"params": published.state_dict()}, tmp_path / "net_d.pth")
    net = small(name).eval()
    assert load_into(net, read_weights(tmp_path / "net_d.pth"), strict=True, where="net_d").fits
    for found, expected in zip(outputs(net, x), outputs(published, x), strict=True):
        assert expected.std() > 0.01
        assert torch.allclose(found, expected, rtol=0, atol=1e-5)
