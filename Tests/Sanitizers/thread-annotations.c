// What the thread sanitizer must be told about Swift on Linux. `./dev sanitize thread` links it into the tests. Nothing
// is suppressed by it, and the product's own code stays as it is.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>

// ---- Synchronization.Mutex ------------------------------------------------------------------------------------------
//
// A mutex that is free is taken by an atomic operation in the code that uses it, which the sanitizer sees. One that
// somebody holds is taken by the kernel (futex, FUTEX_LOCK_PI) inside libswiftSynchronization, which is not
// instrumented: the sanitizer sees neither that unlock nor that lock, and takes what is under the mutex for
// unprotected (swift-mutex.swift is such a program; `./dev sanitize thread` runs it without this file, then with it).
// So the three functions that go to the kernel are wrapped, by their names in the library's ABI, and say what they do.

extern void __tsan_acquire(void *address);
extern void __tsan_release(void *address);

#define LOCK_SLOW "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define TRY_LOCK_SLOW "$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF"
#define UNLOCK_SLOW "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"
#define IS_UNIQUE "$ss25isKnownUniquelyReferencedySbxzRlzClF"

#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context)) void *self

SWIFT void lock_slow(uint32_t thread, SELF) __asm__(LOCK_SLOW);
SWIFT bool try_lock_slow(SELF) __asm__(TRY_LOCK_SLOW);
SWIFT void unlock_slow(SELF) __asm__(UNLOCK_SLOW);

static SWIFT void (*real_lock_slow)(uint32_t thread, SELF);
static SWIFT bool (*real_try_lock_slow)(SELF);
static SWIFT void (*real_unlock_slow)(SELF);
static SWIFT bool (*real_is_unique)(void **reference, void *type);

__attribute__((constructor)) static void find_the_real_ones(void) {
    *(void **)&real_lock_slow = dlsym(RTLD_NEXT, LOCK_SLOW);
    *(void **)&real_try_lock_slow = dlsym(RTLD_NEXT, TRY_LOCK_SLOW);
    *(void **)&real_unlock_slow = dlsym(RTLD_NEXT, UNLOCK_SLOW);
    *(void **)&real_is_unique = dlsym(RTLD_NEXT, IS_UNIQUE);
}

SWIFT void lock_slow(uint32_t thread, SELF) {
    real_lock_slow(thread, self);
    __tsan_acquire(self);
}

SWIFT bool try_lock_slow(SELF) {
    bool is_locked = real_try_lock_slow(self);
    if (is_locked) __tsan_acquire(self);
    return is_locked;
}

SWIFT void unlock_slow(SELF) {
    __tsan_release(self);
    real_unlock_slow(self);
}

// ---- Access to a value of no size -----------------------------------------------------------------------------------
//
// The compiler reports every `inout` access besides the reads and writes in it. For a type of no size, such as
// SystemRandomNumberGenerator, the address that it reports is whatever is in the register, and the sanitizer crashes on
// it. This takes the report's place (linked with --wrap=__tsan_external_write); the reads and writes themselves are
// still checked.

void __wrap___tsan_external_write(void *address, void *caller, void *tag);
void __wrap___tsan_external_write(void *address, void *caller, void *tag) { (void)address, (void)caller, (void)tag; }

// ---- Continuations --------------------------------------------------------------------------------------------------
//
// The runtime says that resuming a continuation (a release of the task) comes before the task is run again (an acquire
// of it). But a task whose continuation is resumed before it has begun to wait goes straight on, without the acquire:
// what it then reads of the result seems to race with whoever made it (swift-continuation.swift). The first thing that
// compiled code does after a call that may have waited is to give the callee's frame back, so that is where the acquire
// is made up for (linked with --wrap=swift_task_dealloc).

extern void *swift_task_getCurrent(void) __attribute__((swiftcall));
SWIFT void __real_swift_task_dealloc(void *frame);
SWIFT void __wrap_swift_task_dealloc(void *frame);

SWIFT void __wrap_swift_task_dealloc(void *frame) {
    void *task = swift_task_getCurrent();
    if (task) __tsan_acquire(task);
    __real_swift_task_dealloc(frame);
}

// ---- The last reference ---------------------------------------------------------------------------------------------
//
// Who holds the only reference to an object may change it: whoever else had one has let go of it, and is done with it.
// Copy-on-write and NIO's buffers rest on that. The reference count that carries this from thread to thread is in
// libswiftCore, which is not instrumented, so that reads before a release seem to race with the change (swift-unique.swift).
// So both are told: letting go (linked with --wrap=swift_release), and the answer yes to the question whether there is no
// other reference, a function of the library's ABI that is put in front of the real one as those of Mutex are.

void __real_swift_release(void *object);
void __wrap_swift_release(void *object);

void __wrap_swift_release(void *object) {
    // Null, and texts and numbers that fit into the reference, are no objects.
    if ((intptr_t)object > 0) __tsan_release(object);
    __real_swift_release(object);
}

SWIFT bool is_unique(void **reference, void *type) __asm__(IS_UNIQUE);

SWIFT bool is_unique(void **reference, void *type) {
    bool answer = real_is_unique(reference, type);
    if (answer) __tsan_acquire(*reference);
    return answer;
}
