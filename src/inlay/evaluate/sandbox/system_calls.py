"""The system call filter: what an ordinary program never asks for, and what would reach past the sandbox's limits.

It refuses (with an error, not a kill): debugging of other processes, new namespaces and mounts, kernel memory that no
limit counts (shared memory segments, memory files, message queues, keys), io_uring, eBPF, performance counters, typing
into a terminal, and sockets of families that namespaces do not hold (vsock, packet, netlink, alg ...). Numbers are
those of the kernel's tables for x86-64 and arm64; on another processor there is no filter, and namespaces and limits
hold alone.
"""

import errno
import struct

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

# name: (x86-64, arm64)
_REFUSED: dict[str, tuple[int, int]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "shmget": (29, 194), "shmctl": (31, 195), "shmat": (30, 196), "msgget": (68, 186), "msgsnd": (69, 189),
    "mq_open": (240, 180), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "quotactl": (179, 60), "swapon": (167, 224), "swapoff": (168, 225),
    "reboot": (169, 142), "acct": (163, 89), "syslog": (103, 116),
}  # fmt: skip
_CLONE, _CLONE3, _IOCTL, _SOCKET = (56, 220), (435, 435), (16, 29), (41, 198)
_NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
_TERMINAL_REQUESTS = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX."""
_FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET and AF_INET6, which the network namespace holds."""

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_AT, _SECOND_AT = 0, 4, 16, 24
"""Offsets in `struct seccomp_data`; of the arguments the lower half, both machines being little-endian."""


def system_call_filter(machine: str) -> bytes | None:
    """The filter as classic BPF for `bwrap --seccomp`; None for a processor whose numbers are not known here."""
    architecture = _ARCHITECTURES.get(machine)
    if architecture is None:
        return None
    column = list(_ARCHITECTURES).index(machine)
    code = [
        _one(_LOAD, value=_ARCHITECTURE_AT),
        _one(_EQUAL, 1, 0, architecture),
        _one(_RETURN, value=_KILL),  # a 32-bit call: other numbers
        _one(_LOAD, value=_NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [_one(_ANY_BIT, 0, 1, _X32_BIT), _one(_RETURN, value=_refusal(errno.ENOSYS))]
    for name, numbers in _REFUSED.items():
        # A memory file that "does not exist" is done without; one that is forbidden ends some programs.
        why = errno.ENOSYS if name == "memfd_create" else errno.EPERM
        code += [_one(_EQUAL, 0, 1, numbers[column]), _one(_RETURN, value=_refusal(why))]
    # clone3 has its flags in memory, which a filter cannot read: the C library then takes clone.
    code += [_one(_EQUAL, 0, 1, _CLONE3[column]), _one(_RETURN, value=_refusal(errno.ENOSYS))]
    code += [
        _one(_EQUAL, 0, 4, _CLONE[column]),
        _one(_LOAD, value=_FIRST_AT),
        _one(_ANY_BIT, 0, 1, _NAMESPACE_FLAGS),
        _one(_RETURN, value=_refusal(errno.EPERM)),
        _one(_RETURN, value=_ALLOW),
    ]
    code += [
        _one(_EQUAL, 0, 3 + len(_TERMINAL_REQUESTS), _IOCTL[column]),
        _one(_LOAD, value=_SECOND_AT),
        *(_one(_EQUAL, len(_TERMINAL_REQUESTS) - place, 0, one) for place, one in enumerate(_TERMINAL_REQUESTS)),
        _one(_RETURN, value=_ALLOW),
        _one(_RETURN, value=_refusal(errno.EPERM)),
    ]
    code += [
        _one(_EQUAL, 0, 3 + len(_FAMILIES), _SOCKET[column]),
        _one(_LOAD, value=_FIRST_AT),
        *(_one(_EQUAL, len(_FAMILIES) - place, 0, one) for place, one in enumerate(_FAMILIES)),
        _one(_RETURN, value=_refusal(errno.EAFNOSUPPORT)),
        _one(_RETURN, value=_ALLOW),
    ]
    code.append(_one(_RETURN, value=_ALLOW))
    return b"".join(code)


def _one(code: int, if_true: int = 0, if_false: int = 0, value: int = 0) -> bytes:
    """An instruction: `struct sock_filter`."""
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _refusal(number: int) -> int:
    """The filter's answer "fail with this error number"."""
    return 0x00050000 | number
