"""The blocks of the scheduler reference: each builds, and trains a stand-in for the model that it is written for."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from traiNNer.config.component_maps import SECTIONS, components
from traiNNer.config.reading import parse
from traiNNer.optimizers import build_optimizer
from traiNNer.schedulers import LearningRate, ObservesValidation, build_schedule

ADAMW = '{"type": "AdamW", "lr": %s, "betas": [0.9, 0.95], "weight_decay": 0.01%s}'
LION = '{"type": "Lion", "lr": %s, "betas": [0.9, 0.95], "weight_decay": 0.01, "decoupled_weight_decay": true}'
CRITIC = '{"type": "AdamW", "lr": %s, "betas": [0.0, 0.9], "weight_decay": 0.001, "amsgrad": true}'
COSINE = '{"type": "CosineAnnealingLR", "eta_min_factor": %s}'

BLOCKS = {
    "component maps": """
        scheduler_config:
          vae_encoder:
            type: "CosineAnnealingLR"
            T_max: 100
            eta_min_factor: 0.1
          flow_processor:
            type: "LinearLR"
            start_factor: 1.0
            end_factor: 0.1
            total_iters: 1000
    """,
    "VAE training (high quality)": json.dumps(
        {
            "optimizers": {
                "vae": json.loads(ADAMW % ("2e-5", ', "eps": 1e-8')),
                "discriminator": json.loads(CRITIC % "2e-5"),
            },
            "schedulers": {"vae": json.loads(COSINE % 0.1), "discriminator": json.loads(COSINE % 0.1)},
        }
    ),
    "flow training (memory efficient)": json.dumps(
        {
            "optimizers": {"flow": json.loads(LION % "5e-7"), "vae": json.loads(ADAMW % ("5e-7", ""))},
            "schedulers": {"flow": json.loads(COSINE % 0.1), "vae": json.loads(COSINE % 0.1)},
        }
    ),
    "joint training": json.dumps(
        {
            "optimizers": {
                "flow": json.loads(LION % "1e-6"),
                "vae": json.loads(ADAMW % ("5e-6", "")),
                "text_encoder": {"type": "AdamW", "lr": 1e-7, "betas": [0.9, 0.99], "weight_decay": 0.01},
                "discriminator": json.loads(CRITIC % "5e-6"),
            },
            "schedulers": {
                "flow": json.loads(COSINE % 0.1),
                "vae": json.loads(COSINE % 0.1),
                "text_encoder": json.loads(COSINE % 0.001),
                "discriminator": json.loads(COSINE % 0.1),
            },
        }
    ),
    "SGD with step decay": json.dumps(
        {
            "optimizers": {"vae": {"type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}},
            "schedulers": {"vae": {"type": "StepLR", "step_size": 10000, "gamma": 0.5}},
        }
    ),
    "basic usage": json.dumps(
        {
            "optimizers": {
                "flow": {"type": "Lion", "lr": 5e-7, "weight_decay": 0.01},
                "vae": {"type": "AdamW", "lr": 1e-5, "weight_decay": 0.01},
            },
            "schedulers": {"flow": json.loads(COSINE % 0.1), "vae": json.loads(COSINE % 0.1)},
        }
    ),
}

SCHEDULERS: list[dict[str, Any]] = [
    {"type": "CosineAnnealingLR", "eta_min_factor": 0.1},
    {"type": "CosineAnnealingLR", "eta_min_factor": 0.001},
    {"type": "CosineAnnealingLR", "eta_min_factor": 0.5},
    {"type": "LinearLR", "start_factor": 0.1, "end_factor": 1.0, "total_iters": 5000},
    {"type": "LinearLR", "start_factor": 1.0, "end_factor": 0.0, "total_iters": 50000},
    {"type": "LinearLR", "start_factor": 1.0, "end_factor": 0.25},
    {"type": "ExponentialLR", "gamma": 0.9999},
    {"type": "ExponentialLR", "gamma": 0.999},
    {"type": "ExponentialLR", "gamma": 0.95},
    {"type": "ConstantLR", "factor": 1.0},
    {"type": "ConstantLR", "factor": 0.1, "total_iters": 10000},
    {"type": "ConstantLR", "factor": 0.01, "total_iters": 1000},
    {"type": "StepLR", "step_size": 10000, "gamma": 0.5},
    {"type": "StepLR", "step_size": 5000, "gamma": 0.1},
    {"type": "StepLR", "step_size": 20000, "gamma": 0.8},
    {"type": "ReduceLROnPlateau", "mode": "min", "factor": 0.5, "patience": 10, "threshold": 1e-4},
    {"type": "ReduceLROnPlateau", "mode": "max", "factor": 0.1, "patience": 5, "threshold": 0.001},
    {"type": "ReduceLROnPlateau", "mode": "min", "factor": 0.75, "patience": 20, "threshold": 1e-5},
]


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    names = ("vae_encoder", "vae_decoder", "flow_processor", "text_encoder", "net_d")
    return {name: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)) for name in names}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_builds_and_steps(block: str) -> None:
    root, problems = parse(BLOCKS[block], block)
    assert not problems
    content: dict[str, Any] = root.plain()
    nets = networks()
    assert content.keys() <= SECTIONS.keys()
    optimizers, schedulers = (
        content.get("optimizers", {}),
        content.get("schedulers", content.get("scheduler_config", {})),
    )
    for name in {*optimizers, *schedulers}:
        found = components(name, list(nets))
        assert found, name
        for network in found:
            net = nets[network]
            optimizer = build_optimizer(optimizers.get(name, {"type": "AdamW", "lr": 1e-4}), net)
            rate = LearningRate(optimizer, build_schedule(schedulers.get(name), 1000))
            before = [parameter.detach().clone() for parameter in net.parameters()]
            for iteration in (1, 2, 3):
                rate.apply(iteration)
                optimizer.zero_grad()
                net(torch.ones(2, 4)).square().mean().backward()
                optimizer.step()
            assert any(not torch.equal(one, two) for one, two in zip(before, net.parameters(), strict=True)), network
            assert 0 < rate.current <= optimizer.param_groups[0]["initial_lr"]


@pytest.mark.parametrize("options", SCHEDULERS, ids=json.dumps)
def test_a_scheduler_example_builds(options: dict[str, Any]) -> None:
    schedule = build_schedule(options, 60_000)
    assert 0 <= schedule(1, 1e-5) <= 1
    assert isinstance(schedule, ObservesValidation) is (options["type"] == "ReduceLROnPlateau")
    net = networks()["flow_processor"]
    optimizer = build_optimizer({"type": "AdamW", "lr": 1e-4}, net)
    rate = LearningRate(optimizer, schedule)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    for iteration in (1, 2):
        rate.apply(iteration)
        optimizer.zero_grad()
        net(torch.ones(2, 4)).square().mean().backward()
        optimizer.step()
    assert any(not torch.equal(one, two) for one, two in zip(before, net.parameters(), strict=True))
