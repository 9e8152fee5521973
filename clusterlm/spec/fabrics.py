"""Settings of NCCL, gloo and libfabric that a network between nodes needs, by its kind.

Only what is right on every cluster of that kind: names of single network cards, GID indices,
traffic classes and timeouts are a site's own and belong in the profile's `env`, which wins over
what stands here. NCCL finds InfiniBand and RoCE cards by itself (https://docs.nvidia.com/
deeplearning/nccl/user-guide/docs/env.html, NCCL_IB_HCA: "by default all"; the RoCE v2 GID is
chosen by itself since 2.21, NCCL_IB_GID_INDEX), so for these the preset only keeps the first
contact between ranks off the interfaces that no other node can reach.

gloo takes names and no patterns, and only where names are a standard is one written here.
"""

from __future__ import annotations

from dataclasses import dataclass

# Prefixes that NCCL must not take: of containers and virtual machines on one node. By itself it
# leaves out lo and docker only (its page on NCCL_SOCKET_IFNAME), and takes virbr0 for a network.
_REAL_INTERFACES = "^lo,docker,virbr,veth,br-,cni,podman"


@dataclass(frozen=True)
class Preset:
    """One kind of network.

    Attributes:
        env: what every rank gets.
        source: where this is said.
        advice: what a site may have to add.
    """

    env: dict[str, str]
    source: str
    advice: str


FABRICS: dict[str, Preset] = {
    "infiniband": Preset(
        env={"NCCL_SOCKET_IFNAME": _REAL_INTERFACES},
        source="https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html",
        advice="NCCL_IB_HCA where some cards are for storage alone, such as ^mlx5_bond_0",
    ),
    "roce": Preset(
        env={"NCCL_SOCKET_IFNAME": _REAL_INTERFACES},
        source="https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html",
        advice="NCCL_IB_GID_INDEX (before NCCL 2.21; often 3), NCCL_IB_TC as the site says",
    ),
    "efa": Preset(
        env={
            "FI_PROVIDER": "efa",
            # data loaders fork; huge pages of libfabric then fail with "Cannot allocate memory"
            "FI_EFA_USE_HUGE_PAGE": "0",
            "NCCL_SOCKET_IFNAME": _REAL_INTERFACES,
        },
        source=(
            "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-start-nccl.html (FI_PROVIDER),"
            " https://github.com/aws-samples/awsome-distributed-training, efa-cheatsheet.md"
        ),
        advice="the image must hold libfabric and aws-ofi-nccl, else NCCL falls back to TCP",
    ),
    "slingshot": Preset(
        env={
            # HPE names the interfaces of Slingshot hsn0, hsn1, ...
            "NCCL_SOCKET_IFNAME": "hsn",
            "GLOO_SOCKET_IFNAME": "hsn0",
            "NCCL_CROSS_NIC": "1",
            "FI_CXI_DISABLE_HOST_REGISTER": "1",
            "FI_MR_CACHE_MONITOR": "userfaultfd",
        },
        source=(
            "https://docs.isambard.ac.uk/user-documentation/guides/example-data/nccl/env_vars.sh,"
            " https://docs.cscs.ch/software/communication/nccl/"
        ),
        advice='NCCL_NET: "AWS Libfabric" where the image holds aws-ofi-nccl: it then never '
        "falls back to TCP",
    ),
    "ethernet": Preset(
        env={"NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": _REAL_INTERFACES},
        source="https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html",
        advice="NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME where nodes have several networks",
    ),
}
