"""The system calls that a container may make: agent and compile. A compile gets fewer (init.c).

The names are those of containerd's default profile (contrib/seccomp, 1.7.24). Left out are those
that only 32-bit programs make, io_uring, ptrace, file handles, and changes of the host's clock.
"""

from __future__ import annotations

import platform
from typing import Final

_ALLOWED: Final = """
    accept accept4 access alarm bind brk cachestat capget capset chdir chmod chown clock_getres
    clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2
    execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod
    fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork
    fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents
    getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid
    getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname
    getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl
    ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self
    lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat
    madvise map_shadow_stack membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock
    mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend
    mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep
    newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
    pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease
    pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom
    recvmmsg recvmsg remap_file_pages removexattr rename renameat renameat2 restart_syscall
    rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield seccomp select semctl semget semop semtimedop send sendfile sendmmsg sendmsg
    sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups
    setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid
    setsockopt setuid setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
    splice stat statfs statx symlink symlinkat sync sync_file_range syncfs sysinfo
    tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime
    timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink
    unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev
"""
# The calls that make a compile's sandbox. containerd's profile allows them with CAP_SYS_ADMIN,
# which the agent has only in its user namespace. The sandbox's own filter forbids all of them
# again.
_FOR_SANDBOXES: Final = "mount umount2 unshare clone sethostname setdomainname"
_BY_MACHINE: Final = {
    "x86_64": ("SCMP_ARCH_X86_64", "arch_prctl"),
    "aarch64": ("SCMP_ARCH_AARCH64", ""),
}
_ENOSYS: Final = 38
# AF_UNIX, AF_INET, AF_INET6: what a compile may use (init.c). Each is compared as a whole number.
# The kernel ignores the upper half, so with a list of refused families, bits in it would hide one.
_FAMILIES: Final = (1, 2, 10)
# linux/sched.h
_CLONE_NEWNET: Final = 0x40000000
# linux/personality.h: Linux and 32-bit Linux, each with UNAME26 or without, and the query.
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)


def seccomp_profile() -> dict[str, object]:
    """Return `linux.seccomp` of an OCI specification as JSON values."""
    architecture, extra = _BY_MACHINE.get(platform.machine(), ("", ""))
    names = [*_ALLOWED.split(), *_FOR_SANDBOXES.split(), *extra.split()]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [architecture] if architecture else [],
        "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            *(_allow_if("socket", family) for family in _FAMILIES),
            *(_allow_if("socketpair", family) for family in _FAMILIES),
            *(_allow_if("personality", value) for value in _PERSONALITIES),
            # A sandbox enters a network that an earlier one had (hpcc.agent.linux.networks).
            _allow_if("setns", _CLONE_NEWNET, index=1),
            # A filter cannot read its flags, which are behind a pointer. libc falls back to clone.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
        ],
    }


def _allow_if(name: str, value: int, index: int = 0) -> dict[str, object]:
    condition = {"index": index, "value": value, "op": "SCMP_CMP_EQ"}
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition]}
