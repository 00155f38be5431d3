"""What holds for every network of our own; registering one is what gets it tested."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from networks import SMALL, images, outputs, small
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from traiNNer.archs import after_update, build_network
from traiNNer.archs.paragonsr2_arch import VARIANTS
from traiNNer.types import NetworkInfo
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import NETWORKS


def own_names() -> list[str]:
    return [name for name in NETWORKS.names() if "spandrel" not in NETWORKS.get(name).__module__]


every_network = pytest.mark.parametrize("name", SMALL)


def info(net: nn.Module) -> NetworkInfo:
    found = net.network_info
    assert isinstance(found, NetworkInfo)
    return found


def fake(net: nn.Module, mode: FakeTensorMode) -> nn.Module:
    for module in net.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({key: mode.from_tensor(value) for key, value in tensors.items() if value is not None})
    return net


def loss(net: nn.Module, x: Tensor) -> Tensor:
    """A mean over samples that is not the same for any two output values."""
    values = [output * torch.linspace(-1, 2, output[0].numel()).view_as(output[0]) for output in outputs(net, x)]
    return torch.stack([value.square().mean() for value in values]).sum()


def test_every_network_of_our_own_is_tested() -> None:
    assert set(own_names()) == set(SMALL) | set(VARIANTS)


@every_network
class TestContract:
    def test_facts_build_the_same_network_again(self, name: str) -> None:
        net = small(name)
        facts = info(net)
        parameters = json.loads(json.dumps(facts.parameters))
        assert parameters == facts.parameters
        again = build_network({"type": facts.type, **parameters})
        assert info(again) == facts
        again.load_state_dict(net.state_dict(), strict=True)
        x = images(1, 3, 24, 20)
        for a, b in zip(outputs(net.eval(), x), outputs(again.eval(), x), strict=True):
            assert torch.equal(a, b)

    @pytest.mark.parametrize("size", [(16, 16), (17, 23), (32, 9)])
    def test_shape(self, name: str, size: tuple[int, int]) -> None:
        net = small(name).eval()
        facts = info(net)
        size = (max(size[0], facts.minimum), max(size[1], facts.minimum))
        output = outputs(net, images(2, facts.in_channels, *size))[0]
        assert output.shape[:2] == (2, facts.out_channels)
        if "patchgan" not in name:
            assert output.shape[2:] == (size[0] * facts.scale, size[1] * facts.scale)
        assert torch.isfinite(output).all()

    def test_smallest_image(self, name: str) -> None:
        net = small(name)
        side = info(net).minimum
        for mode in (True, False):
            assert all(torch.isfinite(output).all() for output in outputs(net.train(mode), images(1, 3, side, side)))

    def test_a_gradient_reaches_every_parameter(self, name: str) -> None:
        net = small(name)
        loss(net, images(2, 3, 16, 16)).backward()
        for key, parameter in net.named_parameters():
            assert parameter.requires_grad
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().max() > 0, key

    def test_the_input_gets_a_gradient(self, name: str) -> None:
        x = images(1, 3, 16, 16).requires_grad_()
        loss(small(name), x).backward()
        assert x.grad is not None
        assert (x.grad != 0).float().mean() > 0.99

    def test_evaluation_is_repeatable_and_changes_nothing(self, name: str) -> None:
        net = small(name)
        net(images(2, 3, 16, 16))
        after_update(net)
        net.eval()
        before = copy.deepcopy(net.state_dict())
        x = images(2, 3, 17, 16)
        first, second = outputs(net, x), outputs(net, x)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

    def test_evaluation_of_a_batch_is_that_of_its_images(self, name: str) -> None:
        net = small(name).double()
        net(images(2, 3, 16, 16, dtype=torch.float64))
        net.eval()
        x = images(3, 3, 16, 16, dtype=torch.float64)
        alone = [outputs(net, image) for image in x.split(1)]
        for number, whole in enumerate(outputs(net, x)):
            assert torch.allclose(whole, torch.cat([one[number] for one in alone]), rtol=0, atol=1e-12)

    def test_accumulated_pieces_equal_the_whole(self, name: str) -> None:
        """Gradients, and after the step the buffers, in float64; over two steps, since the first one is special."""
        whole = small(name).double()
        assert not info(whole).batch_coupled
        pieces = copy.deepcopy(whole)
        for seed in (1, 2):
            x = images(4, 3, 16, 16, dtype=torch.float64, seed=seed)
            for net, parts in ((whole, [x]), (pieces, x.split(2))):
                net.zero_grad()
                for part in parts:
                    (loss(net, part) / len(parts)).backward()
                for parameter in net.parameters():
                    parameter.data -= 0.01 * parameter.grad
                after_update(net)
            for (key, a), b in zip(whole.state_dict().items(), pieces.state_dict().values(), strict=True):
                assert torch.allclose(a.double(), b.double(), rtol=1e-9, atol=1e-12), key

    def test_channels_last_gives_the_same(self, name: str) -> None:
        net = small(name)
        x = images(2, 3, 16, 16)
        expected = outputs(net, x)
        net = small(name).to(memory_format=torch.channels_last)
        found = outputs(net, x.contiguous(memory_format=torch.channels_last))
        for a, b in zip(expected, found, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * a.abs().max().item())

    def test_bfloat16_autocast_is_near_float32_and_trains(self, name: str) -> None:
        net = small(name)
        x = images(2, 3, 16, 16)
        expected = outputs(net, x)
        with torch.autocast("cpu", torch.bfloat16):
            found = outputs(net, x)
        for a, b in zip(expected, found, strict=True):
            assert (a - b).abs().max() < 0.05 * a.abs().max() + 0.02
        torch.stack([output.float().square().mean() for output in found]).sum().backward()
        assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.float32 for p in net.parameters())

    def test_a_copy_stands_alone(self, name: str) -> None:
        net = small(name)
        twin = copy.deepcopy(net)
        assert info(twin) == info(net)
        before = copy.deepcopy(net.state_dict())
        nn.init.ones_(next(twin.parameters()))
        twin(images(1, 3, 16, 16))
        after_update(twin)
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

    def test_nothing_waits_for_the_device(self, name: str) -> None:
        """Fake tensors have no values: whatever reads one back fails."""
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            net = fake(small(name), mode)
            for training in (True, False):
                outputs(net.train(training), torch.empty(2, 3, 16, 16))
            after_update(net.train())
            with pytest.raises(DataDependentOutputException):
                next(net.buffers()).sum().item()


def test_names_go_without_regard_to_case_and_underscores() -> None:
    net = build_network({"type": "Paragon_SR2_NANO", "scale": 3})
    assert info(net).type == "paragonsr2_nano"
    assert info(net).scale == 3


def test_one_error_names_every_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        build_network({"type": "munet", "num_feats": 8, "slope": 2.0, "ch_mult": []})
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert any(line.startswith("num_feats: unknown key") and "did you mean num_feat?" in line for line in lines)
    assert "slope: found 2.0; accepted: less than 1.0" in lines
    assert any(line.startswith("ch_mult: ") for line in lines)


def test_an_unknown_type_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean paragonsr2_nano"):
        build_network({"type": "paragonsr2_nanno"})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ParagonSR2", "munet"])
def test_compiles_as_one_graph(name: str) -> None:
    from traiNNer.utils.device import compile_obstacle

    obstacle = compile_obstacle(torch.device("cpu"))
    if obstacle is not None:
        pytest.skip(obstacle)
    options = {"num_groups": 1, "num_blocks": 1} if name == "ParagonSR2" else {"ch_mult": [1]}
    net = small(name, **options)
    eager = copy.deepcopy(net)
    compiled = torch.compile(net, fullgraph=True)
    for seed in (1, 2):
        x = images(2, 3, 16, 16, seed=seed)
        result, expected = compiled(x), eager(x)
        assert torch.allclose(result, expected, rtol=0, atol=1e-5)
        result.square().mean().backward()
        expected.square().mean().backward()
        after_update(net)
        after_update(eager)
    for (key, a), b in zip(net.named_parameters(), eager.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-5), key
    for a, b in zip(net.buffers(), eager.buffers(), strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=0, atol=1e-5)
