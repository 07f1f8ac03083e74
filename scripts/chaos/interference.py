"""What happens to the site's machine: its disk is full, its clock jumps.

A library that is loaded ahead of libc does it, so that it needs no privileges and harms nothing
else on the machine. It lies to the site's processes alone, as a small block of shared memory says,
and can begin and end while they run. A full disk is one on which every ``write`` and ``pwrite`` to
a regular file fails with ENOSPC, after a first one that is cut in half, as the last free bytes of a
real disk would have it.
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from pathlib import Path

_STATE = struct.Struct("=qq")
_SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct state { int64_t clock_offset_seconds, disk_is_full; };
static volatile struct state *state;
static int cut_one;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("CHAOS_STATE");
    int descriptor = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (descriptor < 0) return;
    void *mapped = mmap(0, sizeof *state, PROT_READ, MAP_SHARED, descriptor, 0);
    if (mapped != MAP_FAILED) state = mapped;
    close(descriptor);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME && state) now->tv_sec += state->clock_offset_seconds;
    return failed;
}

static int no_room(int descriptor, size_t *count) {
    struct stat about;
    if (!state || !state->disk_is_full) { cut_one = 0; return 0; }
    if (fstat(descriptor, &about) || !S_ISREG(about.st_mode)) return 0;
    if (!cut_one && *count > 1) { cut_one = 1; *count /= 2; return 0; }
    errno = ENOSPC;
    return 1;
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
    if (no_room(descriptor, &count)) return -1;
    return syscall(SYS_write, descriptor, bytes, count);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off64_t offset) {
    if (no_room(descriptor, &count)) return -1;
    return syscall(SYS_pwrite64, descriptor, bytes, count, offset);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset) {
    return pwrite64(descriptor, bytes, count, offset);
}
"""


class Interference:
    """Compiled into ``folder``. ``environment`` is what processes need that it shall reach."""

    def __init__(self, folder: Path) -> None:
        source, library = folder / "interference.c", folder / "interference.so"
        source.write_text(_SOURCE, encoding="ascii")
        compiler, output = os.environ.get("CC", "cc"), str(library)
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", output, str(source)]
        subprocess.run(command, check=True)
        path = folder / "interference.state"
        path.write_bytes(_STATE.pack(0, 0))
        with path.open("r+b") as file:
            self._state = mmap.mmap(file.fileno(), _STATE.size)
        self.environment = {"LD_PRELOAD": str(library), "CHAOS_STATE": str(path)}

    @property
    def clock_offset_seconds(self) -> int:
        """How far ahead of the true time the site's clock is."""
        return int(_STATE.unpack(self._state[:])[0])

    def set_clock(self, offset_seconds: int) -> None:
        self._set(offset_seconds, self._disk_is_full)

    def fill_disk(self) -> None:
        self._set(self.clock_offset_seconds, True)

    def free_disk(self) -> None:
        self._set(self.clock_offset_seconds, False)

    @property
    def _disk_is_full(self) -> bool:
        return bool(_STATE.unpack(self._state[:])[1])

    def _set(self, offset_seconds: int, disk_is_full: bool) -> None:
        self._state[:] = _STATE.pack(offset_seconds, disk_is_full)
