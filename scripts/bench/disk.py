"""A slower disk: a library that is loaded ahead of libc and sleeps before every sync.

It slows SQLite and PostgreSQL alike, exactly where a slow disk would.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

DELAY_MILLISECONDS = 1
_SOURCE = f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static int after_a_while(const char *name, int descriptor) {{
    struct timespec delay = {{0, {DELAY_MILLISECONDS} * 1000000L}};
    nanosleep(&delay, 0);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(descriptor);
}}

int fsync(int descriptor) {{ return after_a_while("fsync", descriptor); }}
int fdatasync(int descriptor) {{ return after_a_while("fdatasync", descriptor); }}
"""


def slow_disk(directory: Path) -> dict[str, str]:
    """The environment of processes that shall wait DELAY_MILLISECONDS more for each sync; the
    library is compiled into ``directory``.
    """
    source, library = directory / "slow_sync.c", directory / "slow_sync.so"
    source.write_text(_SOURCE, encoding="ascii")
    compiler = (os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC")
    subprocess.run([*compiler, "-o", str(library), str(source), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}
