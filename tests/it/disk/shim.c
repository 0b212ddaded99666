/* Makes writes or fsyncs of some files fail, while a control file says so.
 *
 * DISPATCHER_SHIM names the control file: one line "<fault> <part of a path>". Faults: "fsync" (fsync and fdatasync
 * answer EIO), "rofs" (whatever changes a file answers EROFS). Without the control file nothing fails. Each fault that
 * struck is one byte in "<control file>.hits".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int strikes(int fd, const char *fault) {
    const char *control = getenv("DISPATCHER_SHIM");
    char line[512], link[64], path[4096];
    int saved = errno, struck = 0;
    if (control == NULL) return 0;
    int file = open(control, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        errno = saved;
        return 0;
    }
    ssize_t length = read(file, line, sizeof line - 1);
    close(file);
    if (length > 0) {
        line[length] = '\0';
        line[strcspn(line, "\n")] = '\0';
        char *wanted = strchr(line, ' ');
        if (wanted != NULL) {
            *wanted++ = '\0';
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t named = readlink(link, path, sizeof path - 1);
            if (named > 0) {
                path[named] = '\0';
                struck = strcmp(line, fault) == 0 && strstr(path, wanted) != NULL;
            }
        }
    }
    if (struck) {
        char hits[600];
        snprintf(hits, sizeof hits, "%s.hits", control);
        int ledger = open(hits, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (ledger >= 0) {
            syscall(SYS_write, ledger, "x", 1);
            close(ledger);
        }
    }
    errno = saved;
    return struck;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define REFUSE(fd, fault, code)      \
    if (strikes(fd, fault)) {        \
        errno = code;                \
        return -1;                   \
    }

int fsync(int fd) {
    REFUSE(fd, "fsync", EIO)
    return NEXT(fsync)(fd);
}

int fdatasync(int fd) {
    REFUSE(fd, "fsync", EIO)
    return NEXT(fdatasync)(fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    REFUSE(fd, "rofs", EROFS)
    return NEXT(write)(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REFUSE(fd, "rofs", EROFS)
    return NEXT(writev)(fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    REFUSE(fd, "rofs", EROFS)
    return NEXT(pwrite)(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    REFUSE(fd, "rofs", EROFS)
    return NEXT(pwrite64)(fd, bytes, count, at);
}

int ftruncate(int fd, off_t length) {
    REFUSE(fd, "rofs", EROFS)
    return NEXT(ftruncate)(fd, length);
}

int ftruncate64(int fd, off64_t length) {
    REFUSE(fd, "rofs", EROFS)
    return NEXT(ftruncate64)(fd, length);
}
