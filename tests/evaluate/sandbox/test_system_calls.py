"""The filter, read by a second reader: a small interpreter of classic BPF."""

import errno
import struct

import pytest

from inlay.evaluate.sandbox.system_calls import system_call_filter

ALLOW, KILL = 0x7FFF0000, 0x80000000
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def answer(machine, number, *arguments, architecture=None):
    code = list(struct.iter_unpack("<HBBI", system_call_filter(machine)))
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, architecture or ARCHITECTURE[machine], 0, *padded)
    place, held = 0, 0
    while True:
        operation, if_true, if_false, value = code[place]
        place += 1
        if operation == 0x20:
            (held,) = struct.unpack_from("<I", data, value)
        elif operation == 0x15:
            place += if_true if held == value else if_false
        elif operation == 0x45:
            place += if_true if held & value else if_false
        elif operation == 0x06:
            return value
        else:
            raise AssertionError(operation)


def refused(number):
    return 0x00050000 | number


@pytest.mark.parametrize(
    ("machine", "read", "clone", "clone3", "socket", "ioctl", "ptrace", "memfd"),
    [("x86_64", 0, 56, 435, 41, 16, 101, 319), ("aarch64", 63, 220, 435, 198, 29, 117, 279)],
)
def test_what_is_let_through(machine, read, clone, clone3, socket, ioctl, ptrace, memfd):
    assert answer(machine, read) == ALLOW
    assert answer(machine, 999) == ALLOW
    assert answer(machine, read, architecture=0x40000003) == KILL
    assert answer(machine, ptrace) == refused(errno.EPERM)
    assert answer(machine, memfd) == refused(errno.ENOSYS)
    assert answer(machine, clone3) == refused(errno.ENOSYS)
    assert answer(machine, clone, 0x3D0F00) == ALLOW  # a thread
    assert answer(machine, clone, 0x1200011) == ALLOW  # fork
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(machine, clone, flag | 17) == refused(errno.EPERM)
    for family in range(50):
        assert answer(machine, socket, family) == (ALLOW if family in (1, 2, 10) else refused(errno.EAFNOSUPPORT))
    assert answer(machine, ioctl, 0, 0x5401) == ALLOW
    assert answer(machine, ioctl, 0, 0x5412) == refused(errno.EPERM)
    assert answer(machine, ioctl, 0, 0x541C) == refused(errno.EPERM)
    assert answer(machine, ioctl, 0x5412, 0x5401) == ALLOW


def test_the_other_numbering_of_x86_64_is_refused():
    assert answer("x86_64", 0x40000000 | 1) == refused(errno.ENOSYS)


def test_an_unknown_processor_has_none():
    assert system_call_filter("riscv64") is None


def test_jumps_stay_inside():
    for machine in ARCHITECTURE:
        data = system_call_filter(machine)
        count = len(data) // 8
        for place in range(count):
            operation, if_true, if_false, _ = struct.unpack_from("<HBBI", data, place * 8)
            if operation in (0x15, 0x45):
                assert place + 1 + max(if_true, if_false) < count
