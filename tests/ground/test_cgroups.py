"""Limits of control groups: those of every group between this process and the root, in both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from urst_tiles import cgroups, machine

DEEP = "system.slice/slurmstepd.scope/job_7/step_0/user/task_0"


def process(tmp_path: Path, groups: str, *mounts: str) -> Path:
    """A folder as /proc/self."""
    folder = tmp_path / "self"
    folder.mkdir()
    (folder / "cgroup").write_text(groups)
    plain = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    (folder / "mountinfo").write_text(plain + "".join(f"{line}\n" for line in mounts))
    return folder


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def version_2(tmp_path: Path, path: str = f"/{DEEP}", root: str = "/") -> tuple[Path, Path]:
    tree = tmp_path / "sys fs"
    (tree / path.lstrip("/")).mkdir(parents=True)
    where = str(tree).replace(" ", "\\040")
    line = f"30 23 0:26 {root} {where} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
    return process(tmp_path, f"0::{path}\n", line), tree


@pytest.mark.parametrize("level", range(7))
def test_the_least_limit_of_all_ancestors_counts(level: int, tmp_path: Path) -> None:
    here, tree = version_2(tmp_path)
    everywhere = [tree / DEEP, *[above for above in (tree / DEEP).parents if above.is_relative_to(tree)]]
    assert len(everywhere) == 7
    for number, group in enumerate(everywhere):
        low = number == level
        write(
            group,
            memory__max=str(3 << 30) if low else "max",
            cpu__max="250000 100000" if low else "max 100000",
        )
    assert cgroups.memory_limit(here) == 3 << 30 and cgroups.cpu_limit(here) == 3


def test_what_is_throttled_counts_too(tmp_path: Path) -> None:
    here, tree = version_2(tmp_path)
    write(tree / "system.slice", memory__max=str(4 << 30), memory__high=str(2 << 30))
    assert cgroups.memory_limit(here) == 2 << 30


def test_no_limit_is_none(tmp_path: Path) -> None:
    here, tree = version_2(tmp_path)
    write(tree / DEEP, memory__max="max", cpu__max="max 100000")
    for one in (here, tmp_path / "absent"):
        assert cgroups.memory_limit(one) is None and cgroups.cpu_limit(one) is None


def test_version_1_has_a_tree_for_each_controller(tmp_path: Path) -> None:
    memory, cpu = tmp_path / "memory", tmp_path / "cpu,cpuacct"
    here = process(
        tmp_path,
        "9:memory:/slurm/uid_1/job_2\n4:cpu,cpuacct:/slurm\n3:cpuset:/elsewhere\n1:name=systemd:/user.slice\n",
        f"35 25 0:31 / {memory} rw shared:15 - cgroup cgroup rw,memory",
        f"36 25 0:32 / {cpu} rw shared:16 - cgroup cgroup rw,cpu,cpuacct",
    )
    write(memory / "slurm/uid_1/job_2", memory__limit_in_bytes="9223372036854771712")
    write(memory / "slurm/uid_1", memory__limit_in_bytes=str(5 << 30))
    write(memory, memory__limit_in_bytes="9223372036854771712")
    write(cpu / "slurm", cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000")
    write(cpu, cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert cgroups.memory_limit(here) == 5 << 30 and cgroups.cpu_limit(here) == 2


@pytest.mark.parametrize(
    ("path", "root"), [("/docker/4f", "/docker/4f"), ("/docker/4f", "/"), ("/../../other", "/")]
)
def test_in_a_container_the_mount_point_is_the_group(path: str, root: str, tmp_path: Path) -> None:
    """It shows the group itself, whose path is one of the host, or lies outside."""
    tree = tmp_path / "cgroup"
    write(tree, memory__max=str(1 << 30), cpu__max="100000 100000")
    line = f"30 23 0:26 {root} {tree} ro - cgroup2 cgroup rw"
    here = process(tmp_path, f"0::{path}\n", line)
    assert cgroups.memory_limit(here) == 1 << 30 and cgroups.cpu_limit(here) == 1


def test_the_machine_respects_them(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine.available_memory(), machine.cpu_count()
    monkeypatch.setattr(cgroups, "memory_limit", lambda: 1 << 20)
    monkeypatch.setattr(cgroups, "cpu_limit", lambda: 1)
    assert (machine.available_memory(), machine.cpu_count()) == (1 << 20, 1)
    monkeypatch.setattr(cgroups, "memory_limit", lambda: 1 << 62)
    monkeypatch.setattr(cgroups, "cpu_limit", lambda: 1 << 10)
    assert (machine.available_memory(), machine.cpu_count()) == before
