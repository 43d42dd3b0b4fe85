"""A loopback whose receiving half runs on another core, as it does when subscribers are on other machines.

On loopback a packet's way up to the peer's socket is walked by whoever sends it, at the sender's cost. Receive packet
steering hands that part to another core. It is set for a loopback of our own, in a network namespace that ends with
this process: nothing of the machine changes. See network_namespaces(7), unshare(2), and "RPS" in the kernel's
``networking/scaling.rst``.
"""

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

_CLONE_NEWNS = 0x0002_0000
_CLONE_NEWNET = 0x4000_0000
_MS_REC_PRIVATE = 0x4000 | 1 << 18
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


_STEERING = Path("/sys/class/net/lo/queues/rx-0/rps_cpus")


class Loopback:
    """A loopback of this process and of those it starts from now on."""

    def __init__(self) -> None:
        """Raises OSError where the system does not permit it: it takes root, and two cores."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise OSError("a second core is needed")
        self._core = cores[1]
        system = ctypes.CDLL(None, use_errno=True)
        _check(system.unshare(_CLONE_NEWNS | _CLONE_NEWNET))
        _check(system.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None))
        # Over the one that is there, for us alone: it shows the devices of the namespace that it was mounted in.
        _check(system.mount(b"sysfs", b"/sys", b"sysfs", ctypes.c_ulong(0), None))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
        self.receive_elsewhere(False)

    def receive_elsewhere(self, elsewhere: bool) -> None:
        """Whether the second core takes up what was sent, or the sender's own does."""
        words = (self._core // 32 + 1) * ["00000000"]
        words[0] = f"{elsewhere << self._core % 32:08x}"
        _STEERING.write_text(",".join(words), encoding="ascii")


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
