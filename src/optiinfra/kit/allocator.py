"""The C library's memory allocator."""

import ctypes

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_LARGE_BYTES = 1024 * 1024
_ARENAS = 2


def return_free_memory() -> None:
    """Have glibc give memory that is free back to the system. To be called before the process starts threads.

    By default it has an arena for each of many threads, and takes even blocks of 20 MB (a password's hash, a batch of
    telemetry) from them once one was freed. Small objects between them then keep the whole from being returned: the
    orchestrator grew by 140 MB while customers came and went. Other C libraries have no such function.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        set_option(_M_ARENA_MAX, _ARENAS)
