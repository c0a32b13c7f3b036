"""The cores that a process may use, by control groups of a made-up file system."""

import pytest

from paddle_inline.utils import cores
from paddle_inline.utils.cores import available_cores, cpu_quota

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {inside} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
)
POD = "/kubepods.slice/kubepods-pod1.slice/cri-1.scope"

# name -> (proc/self/mountinfo, proc/self/cgroup, {file: text}, cores)
TREES = {
    "version 2, own group": (V2, "0::/a\n", {"a/cpu.max": "150000 100000\n"}, 1.5),
    "version 2, no limit": (V2, "0::/a\n", {"a/cpu.max": "max 100000\n"}, None),
    "version 2, a container's view": (V2, "0::/\n", {"cpu.max": "400000 100000\n"}, 4.0),
    "version 2, the pod's share is smaller": (
        V2,
        f"0::{POD}\n",
        {
            "kubepods.slice/cpu.max": "max 100000\n",
            "kubepods.slice/kubepods-pod1.slice/cpu.max": "200000 100000\n",
            f"{POD[1:]}/cpu.max": "300000 100000\n",
        },
        2.0,
    ),
    "version 2, the top group's share is smallest": (
        V2,
        "0::/a/b/c\n",
        {"a/cpu.max": "50000 100000", "a/b/cpu.max": "300000 100000", "a/b/c/cpu.max": "max 100000"},
        0.5,
    ),
    "version 2, another group's share does not count": (V2, "0::/a\n", {"b/cpu.max": "50000 100000"}, None),
    "version 2, outside of what is seen": (V2, "0::/../../x\n", {"cpu.max": "200000 100000"}, 2.0),
    "version 1": (
        V1.format(inside="/"),
        "4:cpuset:/x\n2:cpu,cpuacct:/user/job\n",
        {
            "cpu,cpuacct/user/job/cpu.cfs_quota_us": "250000",
            "cpu,cpuacct/user/job/cpu.cfs_period_us": "100000",
        },
        2.5,
    ),
    "version 1, no limit": (
        V1.format(inside="/"),
        "2:cpu,cpuacct:/\n",
        {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        None,
    ),
    "version 1, a group above": (
        V1.format(inside="/"),
        "2:cpu,cpuacct:/user/job\n",
        {
            "cpu,cpuacct/user/cpu.cfs_quota_us": "100000",
            "cpu,cpuacct/user/cpu.cfs_period_us": "50000",
            "cpu,cpuacct/user/job/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/user/job/cpu.cfs_period_us": "100000",
        },
        2.0,
    ),
    "version 1, Docker's": (
        V1.format(inside="/docker/12ab"),
        "2:cpu,cpuacct:/docker/12ab\n0::/docker/12ab\n",
        {"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        0.5,
    ),
    "version 1, Docker's, a group of its own inside": (
        V1.format(inside="/docker/12ab"),
        "2:cpu,cpuacct:/docker/12ab/job\n",
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "800000",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/job/cpu.cfs_quota_us": "300000",
            "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        },
        3.0,
    ),
    "both versions": (
        V1.format(inside="/") + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
        "2:cpu,cpuacct:/a\n0::/b\n",
        {
            "cpu,cpuacct/a/cpu.cfs_quota_us": "400000",
            "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            "unified/b/cpu.max": "300000 100000",
        },
        3.0,
    ),
    "a name with spaces and colons": (
        V2.replace("/sys/fs/cgroup", "/sys/fs/my\\040groups"),
        "0::/a b:c\n",
        {"../my groups/a b:c/cpu.max": "700000 100000"},
        7.0,
    ),
    "damaged files": ("x - y\n\n - \n", "zzz\n\n::\n", {"cpu.max": "x y"}, None),
    "numbers that are none": (V2, "0::/\n", {"cpu.max": "0 0\n"}, None),
    "nothing mounted": ("", "", {}, None),
}


def plant(root, mounts, groups, files):
    proc, mounted = root / "proc" / "self", root / "sys" / "fs" / "cgroup"
    proc.mkdir(parents=True)
    (proc / "mountinfo").write_text(mounts)
    (proc / "cgroup").write_text(groups)
    mounted.mkdir(parents=True)
    for name, text in files.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(text)
    return root


@pytest.mark.parametrize("case", TREES)
def test_the_smallest_share_of_all_groups_counts(tmp_path, case):
    *tree, expected = TREES[case]
    assert cpu_quota(plant(tmp_path, *tree)) == expected


def test_a_system_without_control_groups_has_no_share(tmp_path):
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"),
    [(8, None, 8), (8, 2.9, 2), (2, 16.0, 2), (8, 0.3, 1), (1, None, 1), (8, 8.0, 8)],
)
def test_cores_are_the_smaller_of_mask_and_share(monkeypatch, affinity, quota, expected):
    monkeypatch.setattr(cores, "affinity_cores", lambda: affinity)
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert available_cores() == expected
