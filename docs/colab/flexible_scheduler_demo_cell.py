# A loss scheduler at work, in one cell: paste it into Colab, or any notebook, and run it; about a minute on a CPU.
#
# It installs traiNNer unless it is there, trains a small network on sample photographs with L1, hands weight over to
# the spectrum error once that hardly falls any more, and shows what happened. Run again, it starts afresh.

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = "https://github.com/OWNER/traiNNer.git"  # the address of the repository that this cell is from
FOLDER = Path("traiNNer")  # where it is, or is to be
TOTAL_ITER = 750  # steps of training
VAL_FREQ = 15  # a validation, which is an observation of the scheduler, at every so many

# ---- install -------------------------------------------------------------------------------------------------------

installed = importlib.util.find_spec("traiNNer")
if installed is not None and installed.origin is not None:
    FOLDER = Path(installed.origin).parent.parent
else:
    if not FOLDER.exists():
        if "OWNER" in REPOSITORY:
            raise SystemExit("put the address of the repository into REPOSITORY, at the top of this cell")
        subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, str(FOLDER)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", str(FOLDER / "requirements.txt")], check=True)


def run(program, *arguments):
    """Run a program of the repository and show what it says, line by line."""
    command = [sys.executable, str((FOLDER / program).resolve()), *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    with subprocess.Popen(command, env={**os.environ, "PYTHONUNBUFFERED": "1"}, **options) as process:
        for line in process.stdout:
            print(line, end="")
    if process.returncode:
        raise SystemExit(f"{program} ended with exit code {process.returncode}")


# ---- train ---------------------------------------------------------------------------------------------------------

run("scripts/prepare_sample.py", "--target", "scheduler_demo/sample")
Path("scheduler_demo/options.yml").write_text(
    f"""
name: l1_to_spectrum
scale: 2
num_gpu: auto
manual_seed: 1
path: {{experiments_root: scheduler_demo}}
datasets:
  train:
    name: photograph tiles
    type: PairedImageDataset
    dataroot_gt: scheduler_demo/sample/train/gt
    dataroot_lq: scheduler_demo/sample/train/lq
    lq_size: 16
    batch_size_per_gpu: 8
    num_worker_per_gpu: 0
  val:
    name: held-out photographs
    type: PairedImageDataset
    dataroot_gt: scheduler_demo/sample/val/gt
    dataroot_lq: scheduler_demo/sample/val/lq
    num_worker_per_gpu: 0
network_g: {{type: ParagonSR2, num_feat: 8, num_groups: 1, num_blocks: 1}}
train:
  total_iter: {TOTAL_ITER}
  ema_decay: 0.9
  optim_g: {{type: AdamW, lr: 0.004}}
  losses:
    - {{type: l1loss, loss_weight: 1.0}}
    - {{type: spectrumerrorloss, loss_weight: 0.3}}
  loss_scheduler:
    source_loss: l1loss
    target_loss: spectrumerrorloss
    # less patient than the defaults, as this run is short
    patience: 2
    min_delta: 0.02
    ema_beta: 0.5
    warmup_observations: 2
    min_observations_before_adapt: 4
    transition_step: 0.25
    adaptive_step: false
val:
  val_enabled: true
  val_freq: {VAL_FREQ}
  save_img: false
  metrics_enabled: true
  metrics: {{psnr: {{type: psnr, test_y_channel: true}}, spectrum_error: {{type: spectrum_error}}}}
logger: {{print_freq: {VAL_FREQ}, save_checkpoint_freq: {TOTAL_ITER}, use_tb_logger: true}}
""",
    encoding="utf-8",
)
run("train.py", "scheduler_demo/options.yml")

# ---- look ----------------------------------------------------------------------------------------------------------

run("scripts/plot_loss_scheduler.py", "scheduler_demo/l1_to_spectrum", "--save", "scheduler_demo/loss_scheduler.png")
if importlib.util.find_spec("IPython") is not None:
    from IPython.display import Image, display

    display(Image("scheduler_demo/loss_scheduler.png"))
