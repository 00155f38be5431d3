"""ParagonSR2: sizes, names and function as published, tracked kernels, and the form for a release."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from networks import images, small
from torch import Tensor, nn

from traiNNer.archs import after_update, build_network
from traiNNer.archs.magic_kernel import MagicUpsample
from traiNNer.archs.paragonsr2_arch import ParagonSR2
from traiNNer.models.player import Player
from traiNNer.optimizers import build_optimizer
from traiNNer.schedulers import LearningRate, build_schedule
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import NETWORKS

PARAMETERS = {
    "paragonsr2_nano": 83_139,
    "paragonsr2_xs": 199_987,
    "paragonsr2_s": 1_360_707,
    "paragonsr2_m": 4_596_163,
    "paragonsr2_l": 20_273_187,
    "paragonsr2_xl": 59_169_155,
}
LEGACY = [tap / 32 for tap in (-1, 0, 9, 16, 9, 0, -1)]
MAGIC = [tap / 144 for tap in (-1, 6, -35, 204, -35, 6, -1)]


def paragon(**options: Any) -> ParagonSR2:
    return cast("ParagonSR2", small("ParagonSR2", **options))


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_trainable_parameters_are_as_published(name: str, count: int) -> None:
    with torch.device("meta"):
        net = build_network({"type": name, "scale": 2})
    assert sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad) == count
    assert all(parameter.requires_grad for parameter in net.parameters())


def published_names(groups: int, blocks: int, hr_blocks: int) -> set[str]:
    learned = ["conv_in", "conv_fuse", "hr_conv_in", "conv_out"]
    learned += [f"hr_head.{block}.conv{conv}" for block in range(hr_blocks) for conv in (1, 2)]
    names = {f"magic_upsampler.{part}.conv_{axis}.weight" for part in ("sharpen", "resample_conv") for axis in "hv"}
    for group in range(groups):
        for number in range(blocks):
            block = f"body.{group}.blocks.{number}"
            learned += [f"{block}.context.dwconv_{kind}" for kind in ("hw", "w", "h")]
            inner = ("project_in", "project_out", "kernel_generator.predictor.1", "kernel_generator.predictor.3")
            learned += [f"{block}.transformer.{layer}" for layer in inner]
            names |= {f"{block}.ls1.gamma", f"{block}.ls2.gamma"}
            buffers = ("tracked_kernel", "tracked_initialized", "identity_kernel")
            names |= {f"{block}.transformer.{buffer}" for buffer in buffers}
    return names | {f"{layer}.{kind}" for layer in learned for kind in ("weight", "bias")}


def test_state_dict_is_as_published() -> None:
    state = build_network({"type": "paragonsr2_s", "scale": 2}).state_dict()
    assert set(state) == published_names(groups=3, blocks=4, hr_blocks=2)
    transformer = "body.2.blocks.3.transformer"
    shapes = {
        "body.2.blocks.3.context.dwconv_hw.weight": (6, 1, 3, 3),
        "body.2.blocks.3.context.dwconv_w.weight": (6, 1, 1, 11),
        "body.2.blocks.3.context.dwconv_h.weight": (6, 1, 11, 1),
        "body.2.blocks.3.ls1.gamma": (48,),
        f"{transformer}.project_in.weight": (96, 48, 1, 1),
        f"{transformer}.kernel_generator.predictor.1.weight": (96, 96, 1, 1),
        f"{transformer}.kernel_generator.predictor.3.weight": (864, 96, 1, 1),
        f"{transformer}.tracked_kernel": (96, 1, 3, 3),
        f"{transformer}.tracked_initialized": (),
        "magic_upsampler.sharpen.conv_h.weight": (48, 1, 1, 7),
        "magic_upsampler.sharpen.conv_v.weight": (48, 1, 7, 1),
        "magic_upsampler.resample_conv.conv_v.weight": (48, 1, 5, 1),
        "conv_out.weight": (3, 48, 3, 3),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert state[f"{transformer}.tracked_initialized"].dtype == torch.bool
    assert torch.equal(state["body.2.blocks.3.ls2.gamma"], torch.full((48,), 1e-5))


def convolve(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
    padding = [size // 2 for size in weight.shape[2:]]
    return F.conv2d(x, weight, bias, padding=padding, groups=x.shape[1] // weight.shape[1])


def one_block(state: Mapping[str, Tensor], name: str, x: Tensor, *, training: bool) -> Tensor:
    part = x.shape[1] // 8
    rest = x.shape[1] - 3 * part
    pieces = [x[:, :rest]]
    for number, kind in enumerate(("hw", "w", "h")):
        piece = x[:, rest + number * part : rest + (number + 1) * part]
        pieces.append(convolve(state, f"{name}.context.dwconv_{kind}", piece))
    x = x + state[f"{name}.ls1.gamma"].view(1, -1, 1, 1) * torch.cat(pieces, 1)
    inner = convolve(state, f"{name}.transformer.project_in", x)
    kernels = [state[f"{name}.transformer.tracked_kernel"]] * len(x)
    if training:
        predictor = f"{name}.transformer.kernel_generator.predictor"
        pooled = F.adaptive_avg_pool2d(inner, 1)
        predicted = convolve(state, f"{predictor}.3", convolve(state, f"{predictor}.1", pooled).relu())
        kernels = list(predicted.reshape(len(x), -1, 1, 3, 3))
    samples = zip(inner.split(1), kernels, strict=True)
    inner = torch.cat([F.conv2d(one, kernel, padding=1, groups=len(kernel)) for one, kernel in samples])
    inner = convolve(state, f"{name}.transformer.project_out", F.leaky_relu(inner, 0.1))
    return x + state[f"{name}.ls2.gamma"].view(1, -1, 1, 1) * inner


def as_specified(net: ParagonSR2, x: Tensor, *, alpha: float, scale: int, hr_blocks: int, training: bool) -> Tensor:
    """The network a second time, from its description, sample by sample."""
    state = net.state_dict()
    shallow = y = convolve(state, "conv_in", x)
    for group in range(2):
        residual = y
        for block in range(2):
            y = one_block(state, f"body.{group}.blocks.{block}", y, training=training)
        y = y + residual
    y = convolve(state, "conv_fuse", y) + shallow
    sharp = convolve(state, "magic_upsampler.sharpen.conv_v", convolve(state, "magic_upsampler.sharpen.conv_h", y))
    y = y + alpha * (sharp - y)
    y = y.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    for axis in "hv":
        y = convolve(state, f"magic_upsampler.resample_conv.conv_{axis}", y)
    y = convolve(state, "hr_conv_in", y)
    for block in range(hr_blocks):
        inner = F.leaky_relu(convolve(state, f"hr_head.{block}.conv1", y), 0.1)
        y = y + convolve(state, f"hr_head.{block}.conv2", inner)
    return convolve(state, "conv_out", y)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("scale", "alpha", "hr_blocks", "kernel"),
    [(1, 0.0, 0, "legacy"), (2, 0.5, 1, "magic2021"), (3, 1.0, 2, "legacy"), (4, 7, 1, "legacy")],
)
def test_the_function_is_the_specified_one(
    scale: int, alpha: float, hr_blocks: int, kernel: str, training: bool
) -> None:
    net = paragon(scale=scale, upsampler_alpha=alpha, hr_blocks=hr_blocks, upsampler_kernel=kernel).double()
    net(images(3, 3, 12, 12, dtype=torch.float64))  # for kernels to be tracked
    after_update(net)
    net.train(training)
    x = images(2, 3, 7, 10, dtype=torch.float64)
    expected = as_specified(net, x, alpha=min(alpha, 1), scale=scale, hr_blocks=hr_blocks, training=training)
    assert expected.std() > 0.05
    assert torch.allclose(net(x), expected, rtol=0, atol=1e-10)


class TestTaps:
    @pytest.mark.parametrize(("options", "taps"), [({}, MAGIC), ({"upsampler_kernel": "legacy"}, LEGACY)])
    def test_are_chosen_and_fixed(self, options: dict[str, Any], taps: list[float]) -> None:
        net = paragon(**options).requires_grad_(True)
        state = net.state_dict()
        for axis in "hv":
            weight = state[f"magic_upsampler.sharpen.conv_{axis}.weight"]
            assert torch.allclose(weight.flatten(1), torch.tensor(taps).expand(8, 7))
            smooth = state[f"magic_upsampler.resample_conv.conv_{axis}.weight"]
            assert torch.equal(smooth.flatten(1), (torch.tensor([1.0, 4, 6, 4, 1]) / 16).expand(8, 5))
        assert not any("magic_upsampler" in name for name, _ in net.named_parameters())

    def test_come_with_the_weights(self) -> None:
        legacy, net = paragon(upsampler_kernel="legacy").eval(), paragon().eval()
        x = images(1, 3, 8, 8)
        assert not torch.allclose(net(x), legacy(x), atol=1e-4)
        net.load_state_dict(legacy.state_dict())
        assert torch.equal(net(x), legacy(x))

    def test_enlarge_a_constant_image_to_itself_inside(self) -> None:
        upsample = MagicUpsample(2, alpha=1.0)
        inside = upsample(torch.ones(1, 2, 14, 14), (28, 35))[:, :, 10:-10, 12:-12]
        assert torch.allclose(inside, torch.ones_like(inside))


class TestOptions:
    def test_any_other_option_of_a_variant_is_refused(self) -> None:
        for option in ("num_feat", "ffn_expansion", "block_kwargs", "upsampler_kernel", "use_attention"):
            with pytest.raises(
                ConfigError, match=f"^{option}: unknown key; accepted: hr_blocks, in_chans, scale, upsampler_alpha"
            ):
                build_network({"type": "paragonsr2_nano", "scale": 2, option: 1})

    def test_the_two_of_a_variant_have_their_effect(self) -> None:
        torch.manual_seed(0)
        net = cast(
            "ParagonSR2", build_network({"type": "paragonsr2_s", "scale": 2, "hr_blocks": 0, "upsampler_alpha": 0.25})
        )
        assert (len(net.hr_head), net.magic_upsampler.alpha) == (0, 0.25)

    @pytest.mark.parametrize(("value", "notices"), [(True, 1), (False, 0), (None, 0)])
    def test_use_attention_is_accepted_with_one_notice(
        self, value: bool | None, notices: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging.getLogger("traiNNer"), "propagate", True)
        net = paragon(**({} if value is None else {"use_attention": value}))
        assert len(caplog.records) == notices
        assert all("no attention" in record.getMessage() for record in caplog.records)
        assert net.state_dict().keys() == paragon().state_dict().keys()
        build_network({"type": "ParagonSR2", **cast("Any", net.network_info).parameters})
        copy.deepcopy(net)
        assert len(caplog.records) == notices

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"band_kernel_size": 4}, "band_kernel_size: found 4; accepted: an odd number"),
            ({"band": 5}, "band: unknown key; accepted: band_kernel_size, "),
            ({"branch_ratio": 0.5}, "branch_ratio: found 0.5; accepted: at most 0.33"),
            ({"branch_ratio": 0.1}, "branch_ratio: found 0.1, less than one channel"),
            ({"dynamic_inference": 1}, "dynamic_inference: found 1; accepted: true or false"),
        ],
    )
    def test_mistakes_in_block_kwargs_are_explained(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            build_network({"type": "ParagonSR2", "scale": 2, "num_feat": 8, "block_kwargs": options})
        assert str(caught.value).startswith(f"block_kwargs.{message}")

    def test_mistakes_in_block_kwargs_are_seen_before_anything_is_built(self) -> None:
        with pytest.raises(ConfigError, match="block_kwargs"):
            NETWORKS.validate({"type": "ParagonSR2", "scale": 2, "block_kwargs": {"band_kernel_size": 4}})


def kernels(net: ParagonSR2, x: Tensor) -> list[Tensor]:
    """Each block's predicted kernels for a batch, (B, D, 3, 3), without training on it."""
    seen: list[Tensor] = []
    twin = copy.deepcopy(net)
    for transformer in twin.transformers():
        transformer.kernel_generator.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    twin(x)
    return seen


def tracked(net: ParagonSR2) -> list[Tensor]:
    return [transformer.tracked_kernel.squeeze(1).clone() for transformer in net.transformers()]


def equal(found: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(found, expected, strict=True))


def infinite(net: ParagonSR2, x: Tensor) -> Tensor:
    """An image that makes kernels overflow."""
    bad = torch.full_like(x, torch.inf)
    assert not torch.isfinite(kernels(net, bad)[0]).all()
    return bad


class TestTrackedKernels:
    def test_the_first_step_copies_and_later_ones_move_by_the_momentum(self) -> None:
        net = paragon()
        a, b = images(2, 3, 8, 8, seed=1), images(2, 3, 8, 8, seed=2)
        first = [kernel.mean(0) for kernel in kernels(net, a)]
        second = [kernel.mean(0) for kernel in kernels(net, b)]
        net(a)
        after_update(net)
        assert equal(tracked(net), first)
        net(b)
        after_update(net)
        assert equal(tracked(net), [0.95 * old + 0.05 * new for old, new in zip(first, second, strict=True)])
        assert not equal(tracked(net), first)

    def test_a_loop_that_never_calls_after_update_tracks_every_forward_pass(self) -> None:
        net, told = paragon(), paragon()
        for seed in range(4):
            net(images(2, 3, 8, 8, seed=seed))
            told(images(2, 3, 8, 8, seed=seed))
            after_update(told)
        assert all(torch.equal(a, b) for a, b in zip(tracked(net), tracked(told), strict=True))
        assert all(transformer.tracked_initialized for transformer in net.transformers())

    def test_micro_batches_count_as_one_batch(self) -> None:
        whole, pieces = paragon(), paragon()
        for seed in range(3):
            x = images(6, 3, 8, 8, seed=seed)
            whole(x)
            for part in x.split(2):
                pieces(part)
            after_update(whole)
            after_update(pieces)
            assert equal(tracked(pieces), tracked(whole))

    @pytest.mark.parametrize("steps_before", [0, 1])
    def test_a_micro_batch_that_is_not_finite_is_left_out(self, steps_before: int) -> None:
        net, without = paragon(), paragon()
        for both in [net, without] * steps_before:
            both(images(2, 3, 8, 8, seed=7))
            after_update(both)
        good = [images(2, 3, 8, 8, seed=seed) for seed in (1, 2)]
        for part in (good[0], infinite(net, good[0]), good[1]):
            net(part)
        for part in good:
            without(part)
        after_update(net)
        after_update(without)
        assert equal(tracked(net), tracked(without))

    @pytest.mark.parametrize("steps_before", [0, 1])
    def test_a_step_without_a_finite_micro_batch_changes_nothing(self, steps_before: int) -> None:
        net = paragon()
        x = images(2, 3, 8, 8)
        for _ in range(steps_before):
            net(x)
            after_update(net)
        before = copy.deepcopy(net.state_dict())
        net(infinite(net, x))
        after_update(net)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert bool(net.transformers()[0].tracked_initialized) == bool(steps_before)

    def test_a_skipped_step_leaves_them(self) -> None:
        """As the trainer does it: the gradients of the second micro-batch are not finite."""
        net = paragon()
        optimizer = build_optimizer({"type": "AdamW", "lr": 1e-3}, net)
        player = Player(net, optimizer, LearningRate(optimizer, build_schedule(None, 10), 0))
        good, states = images(2, 3, 8, 8), []
        for _iteration, batches in enumerate([[good, good], [good, infinite(net, good)], [good]]):
            player.begin()
            for batch in batches:
                player.backward(net(batch).square().mean())
            norm = player.gradient_norm()
            player.commit(norm, torch.isfinite(norm))
            states.append(copy.deepcopy(net.state_dict()))
        transformers = [name for name in states[0] if "tracked" in name]
        assert all(torch.equal(states[0][name], states[1][name]) for name in transformers)
        assert not all(torch.equal(states[1][name], states[2][name]) for name in transformers)
        assert net.step_count == 0

    def test_the_mean_over_processes_is_that_of_the_whole_batch(self) -> None:
        """The rule is linear: each process tracks its share, the buffers are averaged, whenever."""
        whole, shares = paragon(), [paragon(), paragon()]
        for seed in range(5):
            x = images(4, 3, 8, 8, seed=seed)
            whole(x)
            after_update(whole)
            for net, part in zip(shares, x.split(2), strict=True):
                net(part)
                after_update(net)
            if seed == 2:
                for a, b in zip(shares[0].buffers(), shares[1].buffers(), strict=True):
                    if a.is_floating_point():
                        mean = (a + b) / 2
                        a.copy_(mean)
                        b.copy_(mean)
        mean = [(a + b) / 2 for a, b in zip(tracked(shares[0]), tracked(shares[1]), strict=True)]
        assert equal(mean, tracked(whole))

    def test_evaluation_uses_them_for_every_sample(self) -> None:
        net = paragon()
        x = images(2, 3, 8, 8)
        untouched = net.eval()(x)
        net.train()(images(4, 3, 8, 8, seed=3))
        assert not torch.allclose(net.eval()(x), untouched, atol=1e-3)
        before = tracked(net)
        net(x)
        assert all(torch.equal(a, b) for a, b in zip(tracked(net), before, strict=True))

    def test_evaluation_before_any_training_changes_nothing_in_the_kernel_place(self) -> None:
        net = paragon().eval()
        for transformer in net.transformers():
            transformer.tracked_kernel.fill_(torch.nan)  # as weights of a network that never trained might have it
            assert torch.equal(transformer.static_kernel(), transformer.identity_kernel)
        assert torch.isfinite(net(images(1, 3, 8, 8))).all()

    def test_training_goes_on_from_loaded_ones(self) -> None:
        net = paragon()
        net(images(2, 3, 8, 8, seed=1))
        after_update(net)
        resumed = paragon()
        resumed(images(2, 3, 8, 8, seed=5))  # something else in memory
        after_update(resumed)
        resumed.load_state_dict(net.state_dict())
        for both in (net, resumed):
            both(images(2, 3, 8, 8, seed=2))
            both(images(2, 3, 8, 8, seed=3))
            after_update(both)
        assert all(torch.equal(a, b) for a, b in zip(net.buffers(), resumed.buffers(), strict=True))

    def test_they_are_tracked_in_full_precision_under_autocast(self) -> None:
        net = paragon()
        with torch.autocast("cpu", torch.bfloat16):
            net(images(2, 3, 8, 8))
        assert {kernel.dtype for kernel in tracked(net)} == {torch.float32}

    def test_dynamic_inference_gives_each_image_its_own(self) -> None:
        net = paragon(block_kwargs={"band_kernel_size": 5, "dynamic_inference": True})
        x = images(2, 3, 8, 8)
        trained = net(x)
        before = tracked(net)
        assert torch.allclose(net.eval()(x), trained, rtol=0, atol=1e-6)
        net(images(2, 3, 8, 8, seed=2))
        assert all(torch.equal(a, b) for a, b in zip(tracked(net), before, strict=True))
        with pytest.raises(
            ConfigError, match=r"block_kwargs\.dynamic_inference: found true; accepted for a release: false"
        ):
            net.fuse_for_release()

    def test_frozen_ones_are_trained_with_as_in_evaluation(self) -> None:
        net = paragon()
        net(images(2, 3, 8, 8))
        frozen = paragon(block_kwargs={"band_kernel_size": 5, "freeze_kernels": True})
        frozen.load_state_dict(net.state_dict())
        x = images(2, 3, 8, 8, seed=4)
        output = frozen(x)
        after_update(frozen)
        assert torch.equal(output, frozen.eval()(x))
        assert all(torch.equal(a, b) for a, b in zip(tracked(frozen), tracked(net), strict=True))
        output.square().mean().backward()
        for name, parameter in frozen.named_parameters():
            trained = "kernel_generator" not in name
            assert parameter.requires_grad == trained
            assert (parameter.grad is not None) == trained


class TestRelease:
    @pytest.mark.parametrize(
        "options", [{}, {"scale": 3, "hr_blocks": 0, "upsampler_alpha": 1.0, "upsampler_kernel": "legacy"}]
    )
    @pytest.mark.parametrize("steps", [0, 3])
    def test_equals_the_evaluation(self, options: dict[str, Any], steps: int) -> None:
        net = paragon(**options)
        for seed in range(steps):
            net(images(2, 3, 8, 8, seed=seed))
            after_update(net)
        state = copy.deepcopy(net.state_dict())
        fused = net.fuse_for_release()
        assert net.training
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
        x = images(2, 3, 13, 18)
        expected = net.eval()(x)
        assert expected.std() > 0.1
        assert torch.allclose(fused(x), expected, rtol=0, atol=1e-5)
        assert torch.equal(fused(x), fused.train()(x))
        assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in net.parameters())

    def test_of_a_variant_equals_its_evaluation(self) -> None:
        net = small("paragonsr2_nano")
        net(images(2, 3, 8, 8))
        x = images(1, 3, 24, 24)
        assert torch.allclose(cast("ParagonSR2", net).fuse_for_release()(x), net.eval()(x), rtol=0, atol=1e-5)

    def test_is_loaded_by_its_type_and_parameters(self) -> None:
        net = paragon(upsampler_kernel="legacy")
        net(images(2, 3, 8, 8))
        fused = net.fuse_for_release()
        info = cast("Any", fused.network_info)
        loaded = build_network({"type": info.type, **info.parameters}).eval()
        loaded.load_state_dict(fused.state_dict(), strict=True)
        x = images(1, 3, 9, 9)
        assert torch.equal(loaded(x), fused(x))
        assert not any(word in name for name in fused.state_dict() for word in ("gamma", "predictor", "tracked"))

    def test_keeps_type_and_mode(self) -> None:
        fused = paragon().double().fuse_for_release()
        assert not fused.training
        assert {parameter.dtype for parameter in fused.parameters()} == {torch.float64}
        assert isinstance(fused, nn.Module)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_an_image_of_one_pixel_is_enlarged(scale: int) -> None:
    net = paragon(scale=scale)
    for mode in (True, False):
        assert net.train(mode)(images(1, 3, 1, 1)).shape == (1, 3, scale, scale)


def test_factors_start_at_1e_5() -> None:
    net = build_network({"type": "paragonsr2_nano", "scale": 2})
    assert all(bool((value == 1e-5).all()) for name, value in net.named_parameters() if name.endswith("gamma"))
