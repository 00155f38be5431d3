"""Files as users have them: the training-automations guide's complete example, and a template of traiNNer-redux."""

from __future__ import annotations

from pathlib import Path

from traiNNer.config import run_paths

COMPLETE = """\
# 2x ParagonSR2 Nano with Training Automations Enabled
name: 2xParagonSR2_Nano_TrainingAutomations
scale: 2
num_gpu: 1
manual_seed: 42

# Dataset Configuration
datasets:
  train:
    name: ParagonSR2_Nano_Train
    type: PairedImageDataset
    dataroot_gt: /path/to/hr/images
    dataroot_lq: /path/to/lr/images
    lq_size: 64
    gt_size: 128
    batch_size_per_gpu: 8
    accum_iter: 1
    num_worker_per_gpu: 4
    pin_memory: true
    dataset_enlarge_ratio: 1

  val:
    name: ParagonSR2_Nano_Val
    type: PairedImageDataset
    dataroot_gt: /path/to/val_hr
    dataroot_lq: /path/to/val_lr
    lq_size: 64
    gt_size: 128
    batch_size_per_gpu: 1
    num_worker_per_gpu: 2

# Network Architecture
network_g:
  type: ParagonSR2
  scale: 2
  num_feat: 48
  num_groups: 3
  num_blocks: 4
  use_attention: true

# Training Configuration
train:
  total_iter: 50000
  grad_clip: true

  # Optimizer Configuration
  optim_g:
    type: AdamW
    lr: 0.0001
    weight_decay: 0.01

  # Training Automations (Phase 1)
  training_automations:
    enabled: true

    # 1. Intelligent Learning Rate Scheduler
    IntelligentLearningRateScheduler:
      enabled: true
      monitor_loss: true
      monitor_validation: true
      adaptation_threshold: 0.02
      plateau_patience: 1000
      improvement_threshold: 0.001
      min_lr_factor: 0.1
      max_lr_factor: 2.0
      fallback:
        scheduler_type: "cosine"
        scheduler_params:
          eta_min: 0.00001
          T_max: 50000
      max_adjustments: 50

    # 2. Dynamic Batch Size Optimizer
    DynamicBatchSizeOptimizer:
      enabled: true
      target_vram_usage: 0.85
      safety_margin: 0.05
      adjustment_frequency: 100
      min_batch_size: 1
      max_batch_size: 32
      vram_history_size: 50
      fallback:
        batch_size: 8
      max_adjustments: 20

    # 3. Adaptive Gradient Clipping
    AdaptiveGradientClipping:
      enabled: true
      initial_threshold: 1.0
      min_threshold: 0.1
      max_threshold: 10.0
      adjustment_factor: 1.2
      monitoring_frequency: 10
      gradient_history_size: 100
      fallback:
        threshold: 1.0
      max_adjustments: 100

    # 4. Intelligent Early Stopping
    IntelligentEarlyStopping:
      enabled: true
      patience: 2000
      min_improvement: 0.001
      min_epochs: 1000
      min_iterations: 5000
      monitor_metric: "val/psnr"
      max_no_improvement: 2000
      improvement_threshold: 0.002
      warmup_iterations: 1000
      fallback:
        early_stopping: false
      max_adjustments: 1

# Loss Configuration
losses:
  - type: L1Loss
    loss_weight: 1.0
  - type: PerceptualLoss
    loss_weight: 0.1
    layers: [relu1_2, relu2_2, relu3_4]
    perceptual_weight: 1.0
    style_weight: 0.0
    pretrained: true

# Validation Configuration
val:
  val_enabled: true
  val_freq: 1000
  save_img: true
  metrics_enabled: true
  metrics:
    psnr:
      better: higher
    ssim:
      better: higher

# Logging Configuration
logger:
  print_freq: 100
  save_checkpoint_freq: 5000
  use_tb_logger: true
  save_checkpoint_format: safetensors

# Path Configuration
path:
  experiments_root: experiments
  models: experiments/2xParagonSR2_Nano_TrainingAutomations/models
  resume_models: experiments/2xParagonSR2_Nano_TrainingAutomations/models
  training_states: experiments/2xParagonSR2_Nano_TrainingAutomations/training_states
  log: experiments/2xParagonSR2_Nano_TrainingAutomations/log
  visualization: experiments/2xParagonSR2_Nano_TrainingAutomations/visualization

# System Configuration
use_amp: true
amp_bf16: false
use_channels_last: true
fast_matmul: false
auto_resume: false
dist: false
"""

REDUX = """\
# traiNNer-redux's template, with what it writes out as off
name: 4x_Template
scale: 4
use_amp: true
amp_bf16: true
fast_matmul: true
use_compile: false
num_gpu: auto
high_order_degradation: false
jpeg_prob: 0.5

datasets:
  train:
    name: Train Dataset
    type: PairedImageDataset
    dataroot_gt: [datasets/train/dataset1/hr, datasets/train/dataset1/hr2]
    dataroot_lq: [datasets/train/dataset1/lr, datasets/train/dataset1/lr2]
    lq_size: 64
    use_hflip: true
    use_rot: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 8
    accum_iter: 1
    io_backend: {type: disk}
    num_prefetch_queue: 1
  val:
    name: Val Dataset
    type: PairedImageDataset
    dataroot_gt: [datasets/val/dataset1/hr]
    dataroot_lq: [datasets/val/dataset1/lr]

network_g:
  type: ConfigTestNet

path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

train:
  ema_decay: 0.999
  ema_power: 0.75
  grad_clip: false
  optim_g:
    type: AdamW
    lr: !!float 1e-4
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: [60000, 120000]
    gamma: 0.5
  total_iter: 500000
  warmup_iter: -1
  pixel_opt:
    type: CharbonnierLoss
    loss_weight: !!float 1.0
    reduction: mean
  use_moa: false
  moa_augs: [none, mixup]
  moa_probs: [0.9, 0.1]

val:
  val_enabled: true
  val_freq: !!float 1e3
  save_img: true
  tile_size: 0
  tile_overlap: 8
  metrics_enabled: true
  metrics:
    psnr: {type: calculate_psnr, crop_border: 4, test_y_channel: false}
    ssim: {type: calculate_ssim_pt, crop_border: 4}

logger:
  print_freq: 100
  save_checkpoint_freq: 1000
  save_checkpoint_format: safetensors
  use_tb_logger: true
  wandb: {project: ~, resume_id: ~}
dist_params:
  backend: nccl
  port: 29500
"""


def test_the_complete_example(load) -> None:
    options = load(COMPLETE)

    assert list(options.train.training_automations.active) == [
        "intelligent_learning_rate_scheduler",
        "dynamic_batch_size_optimizer",
        "adaptive_gradient_clipping",
        "intelligent_early_stopping",
    ]

    assert dict(options.network_g) | {"num_feat": 48, "num_groups": 3, "scale": 2} == dict(options.network_g)
    assert [(loss["name"], loss["loss_weight"]) for loss in options.train.losses] == [
        ("l1loss", 1.0),
        ("perceptualloss", 0.1),
    ]
    assert options.train.losses[1]["layers"] == ("relu1_2", "relu2_2", "relu3_4")
    assert options.datasets["train"].component["gt_size"] == 128
    assert options.datasets["val"].component["lq_size"] == 64
    assert [metric.type for metric in options.val.metrics.values()] == ["psnr", "ssim"]
    assert (options.use_amp, options.dist, options.auto_resume) == (True, False, False)
    paths = run_paths(options)
    experiment = Path("experiments/2xParagonSR2_Nano_TrainingAutomations")
    assert paths.experiment == experiment
    assert paths.models == paths.resume_models == experiment / "models"
    assert (paths.log, paths.visualization) == (experiment / "log", experiment / "visualization")
    assert options.notices == []


def test_a_template_of_traiNNer_redux(load) -> None:
    options = load(REDUX)

    assert options.train.optim_g["lr"] == 1e-4
    assert options.val.val_freq == 1000
    assert [(loss.type, loss["loss_weight"]) for loss in options.train.losses] == [("charbonnierloss", 1.0)]
    assert [metric.type for metric in options.val.metrics.values()] == ["psnr", "ssim"]
    left_out = [notice.partition("x.yml:")[2].split(": ")[1] for notice in options.notices]
    assert left_out == [
        "high_order_degradation",
        "jpeg_prob",
        "datasets.train.num_prefetch_queue",
        "train.use_moa",
        "train.moa_augs",
        "train.moa_probs",
        "logger.wandb",
        "dist_params",
    ]
