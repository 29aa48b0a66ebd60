/* Watches the processes of a kernel and rings when one ends.

   A thread without Python, so that a death is noticed while the interpreter is busy. It sleeps in
   epoll on one pidfd a process, which names the process also after its number was given to another. */
#ifndef SRDS_MONITOR_H
#define SRDS_MONITOR_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "microkernel/processes/bell.h"
#include "microkernel/processes/control.h"

typedef struct {
    pthread_t thread;
    int epoll, stop;
    int pidfds[SRDS_STATIONS];
    _Atomic uint64_t ended;         /* stations whose processes are gone and not yet buried */
    srds_bell *bell;
} srds_monitor;

static void *srds_monitor_run(void *argument) {
    srds_monitor *m = argument;
    struct epoll_event events[SRDS_STATIONS];
    for (;;) {
        int n = epoll_wait(m->epoll, events, SRDS_STATIONS, -1);
        if (n < 0 && errno != EINTR) return NULL;
        for (int i = 0; i < n; i++) {
            if (events[i].data.u32 == 0) return NULL;
            atomic_fetch_or(&m->ended, (uint64_t)1 << events[i].data.u32);
        }
        if (n > 0) srds_bell_ring(m->bell);
    }
}

/* 0, or -1 with errno set. */
static int srds_monitor_start(srds_monitor *m, srds_bell *bell) {
    struct epoll_event stop = {.events = EPOLLIN, .data = {.u32 = 0}};
    sigset_t all, before;
    int error;
    memset(m, 0, sizeof *m);
    for (int i = 0; i < SRDS_STATIONS; i++) m->pidfds[i] = -1;
    m->bell = bell;
    m->epoll = epoll_create1(EPOLL_CLOEXEC);
    m->stop = eventfd(0, EFD_CLOEXEC);
    if (m->epoll < 0 || m->stop < 0 || epoll_ctl(m->epoll, EPOLL_CTL_ADD, m->stop, &stop) < 0)
        return -1;
    sigfillset(&all);               /* signals are for the threads that run Python */
    pthread_sigmask(SIG_BLOCK, &all, &before);
    error = pthread_create(&m->thread, NULL, srds_monitor_run, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) { errno = error; return -1; }
    return 0;
}

/* Watch the process of a station, which is not reaped before this returns. */
static int srds_monitor_watch(srds_monitor *m, unsigned station, pid_t pid) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data = {.u32 = station}};
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) return -1;
    if (m->pidfds[station] >= 0) close(m->pidfds[station]);
    m->pidfds[station] = fd;
    return epoll_ctl(m->epoll, EPOLL_CTL_ADD, fd, &event);
}

static int srds_monitor_kill(srds_monitor *m, unsigned station, int number) {
    if (m->pidfds[station] < 0) { errno = ESRCH; return -1; }
    return (int)syscall(SYS_pidfd_send_signal, m->pidfds[station], number, NULL, 0);
}

static void srds_monitor_forget(srds_monitor *m, unsigned station) {
    if (m->pidfds[station] >= 0) close(m->pidfds[station]);
    m->pidfds[station] = -1;
}

static void srds_monitor_stop(srds_monitor *m) {
    uint64_t one = 1;
    if (write(m->stop, &one, sizeof one) == sizeof one) pthread_join(m->thread, NULL);
    for (unsigned i = 0; i < SRDS_STATIONS; i++) srds_monitor_forget(m, i);
    close(m->epoll);
    close(m->stop);
}

/* Sleep in steps of `step_us` while somebody else leads or nothing has arrived: what lets a program
   that is not in the kernel go on undisturbed. Ends when `*attention` is set or after `steps`. */
static int srds_watch(void *called, void *led, srds_bell *bell, void *gone, unsigned step_us,
                      unsigned steps) {
    _Atomic uint32_t *attention = called, *leading = led;
    _Atomic uint64_t *ended = gone;
    struct timespec step = {0, (long)step_us * 1000};
    for (unsigned i = 0; i < steps; i++) {
        if (atomic_load(attention)) return 1;
        if (!atomic_load(leading) && (atomic_load(&bell->inbox) || atomic_load(ended))) return 1;
        nanosleep(&step, NULL);
    }
    return atomic_load(attention) != 0;
}

/* Sleep until `*attention` is set by srds_call. */
static void srds_attend(void *word) {
    _Atomic uint32_t *attention = word;
    while (!atomic_load(attention))
        syscall(SYS_futex, attention, 128 /* FUTEX_WAIT_PRIVATE */, 0, NULL, NULL, 0);
}

static void srds_call(void *word) {
    _Atomic uint32_t *attention = word;
    if (!atomic_exchange(attention, 1))
        syscall(SYS_futex, attention, 129 /* FUTEX_WAKE_PRIVATE */, 1, NULL, NULL, 0);
}

#endif
