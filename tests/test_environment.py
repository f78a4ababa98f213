"""What run.json says of the surroundings. Oracles: sha256sum, git, importlib.

Devices are torch's answers, exchanged: what a GPU then computes, test_cuda.py says where there is
one. Apple's MPS was never at hand.
"""

import ctypes
import importlib.metadata
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attention import choose_kernel
from errors import UserError
from multitask_classifier import train
from options import Options
from predict import predict_with
from training import environment
from training.checkpoint import random_states, set_random_states

ROOT = Path(__file__).parents[1]


def test_paths_as_one_would_type_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    (here / "real").mkdir(parents=True)
    (here / "link").symlink_to(here / "real")
    monkeypatch.chdir(here)
    assert environment.display_path(here / "a" / "b") == "a/b"
    assert environment.display_path("a/b") == "a/b"
    assert environment.display_path(here / "link" / "python") == "link/python"
    assert environment.display_path(tmp_path / "elsewhere") == str(tmp_path / "elsewhere")


def test_the_environment_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", [str(ROOT / "some.py"), "--name", "two words"])
    found = environment.environment(torch.device("cpu"))
    assert found["command"] == "python some.py --name 'two words'"
    assert found["device"].endswith(f", {torch.get_num_threads()} threads")
    for name, version in found["versions"].items():
        assert version == importlib.metadata.version(name)
    assert {"torch", "numpy", "tokenizers"} <= set(found["versions"])


def test_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever one stands; and none where there is no git."""
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(git, capture_output=True, text=True)
    except OSError:
        pytest.skip("there is no git")
    if done.returncode:
        pytest.skip("not a git checkout")
    monkeypatch.chdir("/")
    described = environment.commit().removesuffix("-dirty").split("-g")[-1]
    tags = subprocess.check_output(["git", "-C", str(ROOT), "tag", "--points-at"], text=True)
    assert done.stdout.startswith(described) or described in tags.split()

    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert environment.commit() == "not a git checkout"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    environment.check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file" / "below", tmp_path / "a\0b"):
        with pytest.raises(
            UserError, match=f"{bad.name[0]}.*: can't be written .*; choose another"
        ):
            environment.check_writable(bad)


def test_without_glibc_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: no such file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    environment.keep_freed_memory()


# ---- devices

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
Patch = pytest.MonkeyPatch


def machine(monkeypatch: Patch, cuda: bool = False, mps: bool = False) -> None:
    """Have torch see these devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M3", raising=False)


def test_cuda_goes_before_mps_and_the_cpu_is_the_default(monkeypatch: Patch) -> None:
    for cuda, mps, expected in ((True, False, CUDA), (True, True, CUDA), (False, True, MPS)):
        machine(monkeypatch, cuda, mps)
        assert environment.pick_device(True) == expected
        assert environment.pick_device(False) == CPU


@pytest.mark.parametrize(
    ("cuda", "mps", "line"),
    [
        (True, False, "A GPU is here (NVIDIA A100, Tesla T4); --use_gpu runs on it.\n"),
        (False, True, "A GPU is here (Apple M3, MPS); --use_gpu runs on it.\n"),
        (False, False, ""),
    ],
)
def test_a_gpu_that_is_not_asked_for_is_said(
    monkeypatch: Patch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    cuda: bool,
    mps: bool,
    line: str,
) -> None:
    """By its driver's files: CUDA itself is not begun."""
    machine(monkeypatch, cuda, mps)
    monkeypatch.delattr(torch.cuda, "get_device_name")
    monkeypatch.setattr(environment, "NVIDIA_DRIVER", tmp_path)
    for number, name in enumerate(("Tesla T4", "NVIDIA A100", "Tesla T4")):
        (tmp_path / f"gpus/{number}").mkdir(parents=True)
        text = f"Model: \t\t {name}\nIRQ:   \t\t 24\n"
        (tmp_path / f"gpus/{number}/information").write_text(text)
    environment.say_idle_gpu(CPU)
    environment.say_idle_gpu(MPS if mps else CUDA)
    assert capsys.readouterr().out == line


def test_a_run_says_so_at_its_start(
    options: Options, monkeypatch: Patch, capsys: pytest.CaptureFixture
) -> None:
    machine(monkeypatch, cuda=True)
    monkeypatch.setattr(environment, "NVIDIA_DRIVER", Path("nowhere"))
    with pytest.raises(UserError, match="nowhere"):
        train(replace(options, model="nowhere"))
    assert capsys.readouterr().out.startswith("A GPU is here (CUDA)")


# What torch was built for, the system, the driver's file, CUDA_VISIBLE_DEVICES, and what is said.
WITHOUT_GPU = {
    "a CPU build beside a driver": (
        *("2.13.0+cpu", None, "Linux", True, None),
        "an NVIDIA driver is here, but torch 2.13.0+cpu is a build for the CPU; pip install "
        "--force-reinstall --index-url https://pypi.org/simple torch==2.13.0",
    ),
    "a CPU build": (
        *("2.13.0+cpu", None, "Linux", False, None),
        "torch 2.13.0+cpu is a build for the CPU, and no NVIDIA driver is here",
    ),
    "hidden": (
        *("2.13.0+cu130", "13.0", "Linux", True, ""),
        "torch 2.13.0+cu130 sees no GPU, and CUDA_VISIBLE_DEVICES is ''; unset it",
    ),
    "an old driver": (
        *("2.13.0+cu130", "13.0", "Linux", True, None),
        "torch 2.13.0+cu130 sees no GPU; does nvidia-smi show one, and is its driver new enough?",
    ),
    "an old Mac": (
        *("2.13.0", None, "Darwin", False, None),
        "torch 2.13.0 sees no MPS, which takes Apple silicon and a recent macOS",
    ),
}


@pytest.mark.parametrize("case", WITHOUT_GPU)
def test_why_there_is_no_gpu(monkeypatch: Patch, tmp_path: Path, case: str) -> None:
    version, cuda, system, driver, visible, message = WITHOUT_GPU[case]
    machine(monkeypatch)
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr(environment, "NVIDIA_DRIVER", tmp_path if driver else tmp_path / "none")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError) as caught:
        environment.pick_device(True)
    assert str(caught.value) == f"--use_gpu: {message}; without the flag the CPU trains"


@pytest.mark.parametrize(
    ("name", "capability", "bf16", "expected"),
    [
        ("A100", (8, 0), True, torch.bfloat16),
        ("T4", (7, 5), False, torch.float16),
        ("V100", (7, 0), False, torch.float16),
        ("P100", (6, 0), False, torch.float32),
    ],
)
def test_the_dtype_that_cuda_is_fast_at(
    monkeypatch: Patch, name: str, capability: tuple, bf16: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    # Old cards compute bf16 too, slowly, which torch counts unless told not to.
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or bf16,
    )
    assert environment.pick_dtype("auto", CUDA) == expected


def test_the_other_dtypes() -> None:
    for device in (CPU, CUDA, MPS):
        assert environment.pick_dtype("fp32", device) == torch.float32
        assert environment.pick_dtype("bf16", device) == torch.bfloat16
        assert environment.pick_dtype("fp16", device) == torch.float16
    assert environment.pick_dtype("auto", MPS) == torch.float32
    assert environment.pick_dtype("auto", CPU) in (torch.float32, torch.bfloat16)


def test_fp16_on_a_cpu_warns(options: Options) -> None:
    slow = "^fp16 on a CPU is many times slower than --precision fp32$"
    with pytest.warns(UserWarning, match=slow):
        folder = train(replace(options, steps_per_epoch=1, precision="fp16"))["folder"]
    with pytest.warns(UserWarning, match=slow):
        predict_with(folder, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype, device in (torch.float16, CUDA), (torch.bfloat16, CPU), (torch.float32, CPU):
            environment.warn_of_slow(dtype, device)


def test_the_device_s_name_in_run_json(monkeypatch: Patch) -> None:
    monkeypatch.chdir(ROOT)
    machine(monkeypatch, mps=True)
    assert environment.environment(MPS)["device"] == "Apple M3, MPS"
    assert environment.environment(CUDA)["device"] == "Tesla T4"


def test_random_states_of_mps(monkeypatch: Patch) -> None:
    """Saved and set where there is one; a checkpoint from there goes on elsewhere."""
    machine(monkeypatch, mps=True)
    generator = torch.Generator().manual_seed(3)
    monkeypatch.setattr(torch.mps, "get_rng_state", generator.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", generator.set_state)
    states = random_states()
    drawn = torch.rand(3, generator=generator)
    set_random_states(states)
    assert torch.equal(torch.rand(3, generator=generator), drawn)
    machine(monkeypatch, mps=False)
    set_random_states(states)
    assert set(random_states()) == {"cpu"}
    assert not torch.equal(torch.rand(3, generator=generator), drawn)


def test_attention_on_mps_is_written_out() -> None:
    with torch.no_grad():
        kernels = [choose_kernel(device) for device in (CPU, CUDA, MPS)]
    assert kernels == ["sdpa", "sdpa", "softmax"]
    assert [choose_kernel(device) for device in (CPU, CUDA, MPS)] == ["softmax", "sdpa", "softmax"]
